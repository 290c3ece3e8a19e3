# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that have another name or another form since 0.1."""

from __future__ import annotations

# {old name: what to write now}. docs/upgrading.md has it as a table.
RENAMED: dict[str, str] = {
    "tfserving_package_user": "tfserving_user",
    "tfserving_service_user": "tfserving_user",
    "tfserving_package_group": "tfserving_group",
    "tfserving_service_group": "tfserving_group",
    "tfserving_models_group": "tfserving_group",
    "tfserving_package_config_path": "tfserving_config_path",
    "tfserving_service_config_path": "tfserving_config_path",
    "tfserving_package_data_path": "tfserving_data_path",
    "tfserving_service_models_base_path": "tfserving_models_base_path",
    "tfserving_service_catalog": "tfserving_models_catalog",
    "tfserving_package_adopt_directories": "tfserving_adopt_directories",
    "tfserving_service_file_system_poll_wait_seconds": (
        "tfserving_service_flags: {file_system_poll_wait_seconds: SECONDS}"
    ),
    "tfserving_service_model_config_file_poll_wait_seconds": (
        "tfserving_service_flags: {model_config_file_poll_wait_seconds: SECONDS}"
    ),
    "tfserving_service_num_load_threads": "tfserving_service_flags: {num_load_threads: NUMBER}",
    "tfserving_service_num_unload_threads": "tfserving_service_flags: {num_unload_threads: NUMBER}",
    "tfserving_service_max_num_load_retries": "tfserving_service_flags: {max_num_load_retries: NUMBER}",
    "tfserving_service_session_parallelism": "tfserving_service_flags: {tensorflow_session_parallelism: NUMBER}",
    "tfserving_service_intra_op_parallelism": "tfserving_service_flags: {tensorflow_intra_op_parallelism: NUMBER}",
    "tfserving_service_inter_op_parallelism": "tfserving_service_flags: {tensorflow_inter_op_parallelism: NUMBER}",
    "tfserving_service_rest_api_num_threads": "tfserving_service_flags: {rest_api_num_threads: NUMBER}",
    "tfserving_service_grpc_max_threads": "tfserving_service_flags: {grpc_max_threads: NUMBER}",
    "tfserving_service_rest_api_timeout_seconds": "tfserving_service_flags: {rest_api_timeout_in_ms: MILLISECONDS}",
    "tfserving_service_cors_enabled": "tfserving_service_flags: {rest_api_enable_cors_support: true}",
    "tfserving_service_profiler_enabled": "tfserving_service_flags: {enable_profiler: true}",
    "tfserving_service_batching_enabled": "tfserving_service_batching_parameters: {max_batch_size: NUMBER}",
    "tfserving_service_cpus": "tfserving_service_instances: [{cpus: LIST}]",
    "tfserving_service_numa_node": "tfserving_service_instances: [{numa_node: NUMBER}]",
    "tfserving_service_memory_high": "tfserving_service_instances: [{memory_high: SIZE}]",
    "tfserving_service_memory_max": "tfserving_service_instances: [{memory_max: SIZE}]",
    "tfserving_models_s3_endpoint_url": "tfserving_models_s3: {endpoint_url: URL}",
    "tfserving_models_s3_region": "tfserving_models_s3: {region: NAME}",
    "tfserving_models_s3_access_key_id": "tfserving_models_s3: {access_key_id: KEY}",
    "tfserving_models_s3_secret_access_key": "tfserving_models_s3: {secret_access_key: KEY}",
    "tfserving_models_s3_session_token": "tfserving_models_s3: {session_token: TOKEN}",
    "tfserving_apt_key_file": "tfserving_apt_key",
    "tfserving_apt_key_content": "tfserving_apt_key",
    "tfserving_apt_key_url": "tfserving_apt_key",
    "tfserving_mirror_upstream_enabled": "tfserving_mirror_upstream: null",
    "tfserving_mirror_upstream_uri": "tfserving_mirror_upstream: {uri: URL}",
    "tfserving_mirror_upstream_suite": "tfserving_mirror_upstream: {suite: NAME}",
    "tfserving_mirror_upstream_components": "tfserving_mirror_upstream: {components: LIST}",
    "tfserving_mirror_upstream_key_url": "tfserving_mirror_upstream: {key_url: URL}",
    "tfserving_mirror_upstream_key_fingerprint": "tfserving_mirror_upstream: {key_fingerprint: FINGERPRINT}",
    "tfserving_gateway_client_requests_per_second": "tfserving_gateway_client_limits: {requests_per_second: NUMBER}",
    "tfserving_gateway_client_burst": "tfserving_gateway_client_limits: {burst: NUMBER}",
    "tfserving_gateway_client_concurrent_requests": "tfserving_gateway_client_limits: {concurrent_requests: NUMBER}",
    "tfserving_monitoring_latency_p99_milliseconds": (
        "tfserving_monitoring_alert_limits: {latency_p99_milliseconds: NUMBER}"
    ),
    "tfserving_monitoring_failed_requests_percent": (
        "tfserving_monitoring_alert_limits: {failed_requests_percent: NUMBER}"
    ),
    "tfserving_monitoring_key_expiry_days": "tfserving_monitoring_alert_limits: {key_expiry_days: NUMBER}",
}
