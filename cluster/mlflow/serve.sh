#!/usr/bin/env bash
# Start MLflow's server. From the environment: POSTGRES_HOST, POSTGRES_PASSWORD, ADMIN_PASSWORD, ARTIFACTS (s3://…),
# MLFLOW_FLASK_SERVER_SECRET_KEY, and what boto3 needs to reach the artifacts.
set -euo pipefail
: "${POSTGRES_HOST:?}" "${POSTGRES_PASSWORD:?}" "${ADMIN_PASSWORD:?}" "${ARTIFACTS:?}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
umask 077
database="postgresql+psycopg2://mlflow:$POSTGRES_PASSWORD@$POSTGRES_HOST:5432/mlflow"
settings="$HOME/auth.ini"
cat > "$settings" <<INI
[mlflow]
default_permission = READ
database_uri = $database
admin_username = admin
admin_password = $ADMIN_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
export MLFLOW_AUTH_CONFIG_PATH="$settings" MLFLOW_BACKEND_STORE_URI="$database"
unset POSTGRES_PASSWORD ADMIN_PASSWORD
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 \
  --allowed-hosts "${ALLOWED_HOSTS:-mlflow:5000,localhost:5000,127.0.0.1:5000}" \
  --serve-artifacts --artifacts-destination "$ARTIFACTS"
