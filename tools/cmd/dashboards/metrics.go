package main

// The metrics that panels and rules use. What is not here is not used: the test holds every expression against this
// list, and the list is what the servers have to export.
const (
	startedCalls = "grpc_server_started_total"
	handledCalls = "grpc_server_handled_total"
	callSeconds  = "grpc_server_handling_seconds_bucket"
	messagesIn   = "grpc_server_msg_received_total"
	messagesOut  = "grpc_server_msg_sent_total"
	ready        = "concordat_ready"
	certNotAfter = "concordat_certificate_not_after_seconds"
	cpuSeconds   = "process_cpu_seconds_total"
	memoryBytes  = "process_resident_memory_bytes"
	openFiles    = "process_open_fds"
	maxFiles     = "process_max_fds"
	goroutines   = "go_goroutines"
	up           = "up"
)

// The series that rules.yaml records.
const (
	handledRate   = "concordat:handled:rate5m"
	latency99     = "concordat:latency_p99:rate5m"
	policyTimeout = "concordat:policy_timeout_seconds"
	errorRatio    = "concordat:error_ratio:rate" // and the window behind it
)

// A metric is something that a server tells of itself.
type metric struct {
	name   string
	labels []string // beyond job and instance, which Prometheus adds
	says   string
}

// metrics returns everything that the servers have to export. The label service is the part of a process that a series is
// of, "payments" or "gateway": standalone has all parts in one process.
func metrics() []metric {
	calls := func(more ...string) []string {
		return append([]string{"service", "grpc_type", "grpc_service", "grpc_method"}, more...)
	}
	return []metric{
		{startedCalls, calls(), "calls that have begun"},
		{handledCalls, calls("grpc_code"), "calls that have ended, by their code"},
		{callSeconds, calls("le"), "how long calls took, in seconds"},
		{messagesIn, calls(), "messages that have come"},
		{messagesOut, calls(), "messages that have gone out"},
		{ready, []string{"service"}, "1 where every check of the service passes, 0 where one fails"},
		{certNotAfter, []string{"service"}, "when the certificate in use ends, in seconds since 1970"},
		{cpuSeconds, nil, "processor time of the process, in seconds"},
		{memoryBytes, nil, "memory of the process, in bytes"},
		{openFiles, nil, "open file descriptors of the process"},
		{maxFiles, nil, "the most file descriptors that the process may have"},
		{goroutines, nil, "goroutines of the process"},
		{up, nil, "1 where Prometheus could read the metrics of the process; Prometheus makes it"},
	}
}

const (
	// errorCodes are the codes by which a server says that something of its own is wrong.
	errorCodes = "Unknown|Internal|DataLoss|Unavailable|DeadlineExceeded"
	// streamErrorCodes are those for streams. A stream ends with DeadlineExceeded at the end of its life and with
	// Unavailable where its server stops: clients resume it, and neither is an error.
	streamErrorCodes = "Unknown|Internal|DataLoss"
	// ours leaves out health checks and reflection.
	ours = `grpc_service!~"grpc[.].*"`
	// jobs is what the scrape jobs of our processes are called.
	jobs = `job=~"concordat.*"`
)
