# The base brings Python, and mostly torch. To try it without a GPU: --build-arg BASE=python:3.11-slim
ARG BASE=nvcr.io/nvidia/pytorch:25.09-py3
FROM ${BASE}

# There is no git in here to tell the version: --build-arg VERSION=1.2.3
ARG VERSION=
# A further package index, such as the one of torch for CPUs, where the base has no torch.
ARG PIP_EXTRA_INDEX_URL

WORKDIR /opt/nucpro
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# The torch of the base is written down as a constraint, so that pip keeps it or fails, but never replaces it.
RUN python -c "from importlib.metadata import distributions as found; \
               print(*{'torch==' + torch.version for torch in found(name='torch')})" > constraints.txt
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} \
    python -m pip install --no-cache-dir --constraint constraints.txt '.[all]'
COPY scripts ./scripts
COPY units.py features_extract.py train.py ./
COPY docker ./docker

# Any user may run it, known to the image or not: models and built GPU kernels are cached where everyone may write.
ENV HOME=/home/nucpro USER=nucpro TRITON_CACHE_DIR=/home/nucpro/.cache/triton
RUN install -d -m 1777 "${HOME}" "${HOME}/.cache" "${HOME}/.cache/huggingface" "${HOME}/.cache/triton"
USER 1000:1000

WORKDIR /work
ENTRYPOINT ["/opt/nucpro/docker/entrypoint.sh"]
CMD ["extract", "/work/data"]
