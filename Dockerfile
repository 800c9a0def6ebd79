# The image brings Python and torch; nothing here may replace its torch.
ARG BASE=nvcr.io/nvidia/pytorch:25.09-py3
FROM ${BASE}

WORKDIR /opt/nucpro
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# The torch of the image is written down as a constraint, so that pip keeps it or fails, but never replaces it.
RUN python -c "import torch; print('torch==' + torch.__version__)" > /tmp/constraints.txt \
    && python -m pip install --no-cache-dir --constraint /tmp/constraints.txt . \
    && rm /tmp/constraints.txt
COPY scripts ./scripts
COPY units.py features_extract.py train.py ./

WORKDIR /work
ENTRYPOINT ["nucpro"]
CMD ["extract", "--data-dir", "/work/data"]
