# An image that measures a CPU:
#
#     docker build --tag mnist-bench .
#     docker run --rm --volume "$PWD/results:/results" mnist-bench run --runs 3
#
# torch is its build for CPUs, whose index uv knows by the name `cpu`. So requirements.txt, whose hashes
# are of the builds with CUDA, does not hold here: the versions are the newest that pyproject.toml
# admits. A container's limits count as the machine's (docs/protocol.md). Its records have a version and no
# commit; ./scripts/bench in a checkout makes those that can be contributed.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git
COPY requirements-uv.txt /
RUN pip install --require-hashes --requirement /requirements-uv.txt
COPY . /project
RUN uv venv /mnist-bench && uv pip install --python /mnist-bench --torch-backend cpu /project

FROM python:3.13-slim
COPY --from=build /mnist-bench /mnist-bench
ENV PATH=/mnist-bench/bin:$PATH
WORKDIR /
ENTRYPOINT ["mnist-bench"]
CMD ["--help"]
