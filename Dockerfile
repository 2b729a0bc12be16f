# sandboxed-python as the entry point of a container.
#
#   docker build -t sandboxed-python .
#   docker run --rm sandboxed-python --permission -c 'print("hello")'
#   docker run --rm -v "$PWD/in:/in:ro" -v "$PWD/out:/out" sandboxed-python \
#       --permission --allow-fs-read=/in/ --allow-fs-write=/out/ /in/job.py
#
# Everything after the image's name goes to sandboxed-python: its options, the program, the program's arguments.
# No privilege is needed: no --privileged, no --cap-add, no --security-opt. `docker run --rm sandboxed-python --check`
# tells what the host's kernel and the container runtime let it enforce.

# Any image with Python 3.10 or later and pip, e.g. --build-arg BASE=python:3.13-slim
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scripts/sandboxed-python scripts/sandboxed-python
COPY policies policies
COPY supervisor supervisor
# The project's own wheel, and those of what it needs, so that the second stage needs no network and no compiler.
RUN python3 -m pip wheel --no-cache-dir --wheel-dir /wheels .

FROM ${BASE}
# The filters are compiled already and part of the wheel; libseccomp is not needed to run.
COPY --from=build /wheels /opt/wheels
RUN python3 -m pip install --no-cache-dir --no-index --root-user-action=ignore /opt/wheels/*.whl
# Not root. Files that the job writes belong to this user; choose another one with docker run --user.
RUN python3 -c 'import os; os.makedirs("/job", exist_ok=True); os.chown("/job", 65534, 65534)'
USER 65534:65534
WORKDIR /job
ENTRYPOINT ["sandboxed-python"]
CMD ["--help"]
