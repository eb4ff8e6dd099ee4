# syntax=docker/dockerfile:1
# bgsweep with CUDA: torch's wheels bring CUDA's libraries, so the host gives only the driver (docker run --gpus all).

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
# The package's metadata alone first: a change of code then leaves the layer with the dependencies as it is.
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY bgsweep/__init__.py bgsweep/__init__.py
RUN pip install -c constraints.txt '.[gpu]'
COPY bgsweep bgsweep
RUN pip install --no-deps --force-reinstall .

FROM python:3.11.14-slim-bookworm
# Ray's workers find their own address with `ip`; the commit that MLflow records is given at build time.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 bgsweep
COPY --from=build /opt/venv /opt/venv
ARG GIT_COMMIT=unknown
ENV PATH=/opt/venv/bin:$PATH \
    BGSWEEP_GIT_COMMIT=$GIT_COMMIT \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER bgsweep
WORKDIR /home/bgsweep
COPY --chown=bgsweep search_spaces search_spaces
ENTRYPOINT ["bgsweep"]
CMD ["--help"]
