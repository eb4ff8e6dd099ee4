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
# aws or gcp besides, for a head that `ray up` starts: EXTRAS=gpu,aws
ARG EXTRAS=gpu
RUN pip install -c constraints.txt ".[$EXTRAS]"
COPY bgsweep bgsweep
# bgsweep/search_spaces is a link to it.
COPY search_spaces search_spaces
RUN pip install --no-deps --force-reinstall .

FROM python:3.11.14-slim-bookworm
# torch.compile calls a C compiler, and KubeRay's probes call wget. A login shell, such as KubeRay starts Ray in, sets a
# PATH of its own.
# hadolint ignore=DL3008,SC2016
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 bgsweep \
    && echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/bgsweep.sh
COPY --from=build /opt/venv /opt/venv
# The image holds no checkout: its commit is given with --build-arg GIT_COMMIT=$(git rev-parse HEAD).
ARG GIT_COMMIT=unknown
ENV PATH=/opt/venv/bin:$PATH \
    BGSWEEP_GIT_COMMIT=$GIT_COMMIT \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/bgsweep
COPY search_spaces search_spaces
ENTRYPOINT ["bgsweep"]
CMD ["--help"]
