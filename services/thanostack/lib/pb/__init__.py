"""Messages of the wire, generated from `proto/*.proto` by `make proto`; do not edit.

| module | package | holds |
|---|---|---|
| `labels_pb2`, `series_pb2`, `store_pb2` | `thanos` | StoreAPI and WriteableStore |
| `query_pb2`, `rules_pb2`, `targets_pb2`, `metadata_pb2`, `exemplars_pb2`, `status_pb2` | `thanos` | the other APIs of an endpoint |
| `info_pb2` | `thanos.info` | what an endpoint offers |
| `hints_pb2` | `hintspb` | block hints and statistics of a bucket store |
| `prometheus_copy_pb2` | `prometheus_copy` | Thanos's copy of the remote messages |
| `prometheus_remote_pb2` | `prometheus` | remote write 1.0, remote read |
| `remote_write_v2_pb2` | `io.prometheus.write.v2` | remote write 2.0 |

Hot paths read and write these bytes with kernels; these classes are for control messages, tests
and fallbacks. Nothing here imports grpc: a full method name (`/thanos.Store/Series`) and bytes are
all that the transport needs.
"""  # noqa: E501
