package main

// The metrics that panels and rules use. What is not here is not used: the test holds every expression against this
// list, and the list is what the servers have to export.
const (
	startedCalls = "grpc_server_started_total"
	handledCalls = "grpc_server_handled_total"
	callFaults   = "grpc_server_faults_total"
	underWay     = "grpc_server_in_flight"
	callSeconds  = "grpc_server_handling_seconds_bucket"
	messagesIn   = "grpc_server_msg_received_total"
	messagesOut  = "grpc_server_msg_sent_total"
	callsMade    = "grpc_client_handled_total"
	madeSeconds  = "grpc_client_handling_seconds_bucket"
	edgeCalls    = "concordat_edge_calls_total"
	edgeRequests = "concordat_edge_requests_total"
	logLag       = "concordat_eventlog_lag_events"
	logBehind    = "concordat_eventlog_lag_seconds"
	subscribers  = "concordat_eventlog_subscribers"
	subsCut      = "concordat_eventlog_subscribers_cut_total"
	dbMax        = "go_sql_max_open_connections"
	dbInUse      = "go_sql_in_use_connections"
	dbWaited     = "go_sql_wait_duration_seconds_total"
	dbWaits      = "go_sql_wait_count_total"
	dbQueue      = "concordat_sql_writers_waiting"
	ready        = "concordat_ready"
	certNotAfter = "concordat_certificate_not_after_seconds"
	connRefused  = "concordat_connections_refused_total"
	callsRefused = "concordat_calls_refused_early_total"
	revHeard     = "concordat_revocations_heard_seconds"
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
	pool := []string{"service", "db_name", "pool"}
	return []metric{
		{startedCalls, calls(), "calls that have begun"},
		{handledCalls, calls("grpc_code"), "calls that have ended, by their code"},
		{callFaults, []string{"service", "grpc_service", "grpc_method", "reason"}, "calls that have ended with a fault, by its reason"},
		{underWay, calls(), "calls under way"},
		{callSeconds, calls("le"), "how long calls took, in seconds"},
		{messagesIn, calls(), "messages that have come"},
		{messagesOut, calls(), "messages that have gone out"},
		{callsMade, calls("grpc_code"), "calls that the service has made to others and that have ended, by their code"},
		{madeSeconds, calls("le"), "how long calls to others took, repetitions included, in seconds"},
		{edgeCalls, []string{"service", "protocol", "grpc_service", "grpc_method", "grpc_code"}, "calls through the edge that have ended, by what the caller spoke"},
		{edgeRequests, []string{"service", "protocol", "status"}, "HTTP requests that did not become a call, by their status"},
		{logLag, []string{"service"}, "events that are committed and not yet read for subscribers"},
		{logBehind, []string{"service"}, "how long ago the oldest of them happened, in seconds"},
		{subscribers, []string{"service"}, "subscriptions that get events as they are committed"},
		{subsCut, []string{"service"}, "subscriptions that were cut because they did not keep up"},
		{dbMax, pool, "the most connections that the pool may have"},
		{dbInUse, pool, "connections of the pool in use"},
		{dbWaits, pool, "how often somebody waited for a connection, or for the turn to write"},
		{dbWaited, pool, "how long they waited in all, in seconds"},
		{dbQueue, []string{"service", "db_name"}, "writes that wait for their turn"},
		{ready, []string{"service"}, "1 where every check of the service passes, 0 where one fails"},
		{certNotAfter, []string{"service"}, "when the certificate in use ends, in seconds since 1970"},
		{connRefused, []string{"service", "reason"}, "connections that were refused before a call could come over them"},
		{callsRefused, []string{"service"}, "calls that the transport refused before they began"},
		{revHeard, []string{"service"}, "when the feed of revoked access tokens last said something, in seconds since 1970; 0 for never"},
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
	// tooMany are the reasons for which calls are turned away because there are too many.
	tooMany = "RATE_LIMITED|OVERLOADED"
	// ours leaves out health checks and reflection.
	ours = `grpc_service!~"grpc[.].*"`
	// jobs is what the scrape jobs of our processes are called.
	jobs = `job=~"concordat.*"`
)
