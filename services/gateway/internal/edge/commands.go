package edge

import "strings"

// Page is what the landing page tells about the running process.
type Page struct {
	// HTTP is the address of the HTTP side: "http://localhost:8080".
	HTTP string
	// GRPC is the address of the gRPC side: "localhost:8081".
	GRPC string
	// Secure says that both speak TLS.
	Secure bool
	// Issuer is the issuer of access tokens.
	Issuer string
	// Targets are where the services are, by name; empty where strangers can see the page.
	Targets map[string]string
}

// Command is one thing to try in a shell.
type Command struct {
	// Title says what it does.
	Title string
	// Lines is what to type: POSIX shell, curl (7.82 or newer) and grpcurl. Later commands use the variables that earlier
	// ones set.
	Lines string
}

// Commands returns the things to try, in the order in which they work. For the addresses http://localhost:8080 and
// localhost:8081 every line for the gateway in the README is among them.
func (p Page) Commands() []Command {
	plaintext := "-plaintext "
	if p.Secure {
		plaintext = ""
	}
	fill := strings.NewReplacer("{http}", strings.TrimPrefix(p.HTTP, "http://"), "{grpc}", p.GRPC, "{plaintext}", plaintext)
	commands := []Command{
		{"Sign up", `curl -sS {http}/v1/accounts --json '{"email": "ada@example.com", "password": "correct horse battery", "display_name": "Ada", "request_id": "8c0e4c5e-2d0a-4d5b-9a52-0d3f3c1f7a10"}'`},
		{"Sign in, and keep the access token and the user id", `SESSION=$(curl -sS {http}/v1/sessions --json '{"email": "ada@example.com", "password": "correct horse battery"}')
TOKEN=$(echo "$SESSION" | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')
USER_ID=$(echo "$SESSION" | sed -n 's/.*"user_id": *"\([^"]*\)".*/\1/p')`},
		{"Pay: over REST, and over gRPC with the same key, which charges nobody twice", `curl -sS {http}/v1/charges -H "authorization: Bearer $TOKEN" --json '{"order_id": "order-1", "amount_cents": 1999, "currency": "EUR", "idempotency_key": "key-1", "customer_id": "'$USER_ID'"}'
go tool grpcurl {plaintext}-H "authorization: Bearer $TOKEN" -d '{"order_id": "order-1", "amount_cents": 1999, "currency": "EUR", "idempotency_key": "key-1", "customer_id": "'$USER_ID'"}' {grpc} payments.v1.PaymentService/Charge`},
		{"List the payments: over REST, over Connect, where every method is a path, and over gRPC from the .proto files", `curl -sS "{http}/v1/payments?customer_id=$USER_ID" -H "authorization: Bearer $TOKEN"
curl -sS {http}/payments.v1.PaymentService/ListPayments -H "authorization: Bearer $TOKEN" --json '{"customer_id": "'$USER_ID'"}'
go tool grpcurl {plaintext}-import-path proto -import-path third_party -proto payments/v1/payment_service.proto -H "authorization: Bearer $TOKEN" -d '{"customer_id": "'$USER_ID'"}' {grpc} payments.v1.PaymentService/ListPayments`},
		{"What there is, and what it says of itself", `go tool grpcurl {plaintext}{grpc} list
go tool grpcurl {plaintext}{grpc} describe payments.v1.PaymentService.Charge
curl -sS {http}/openapi.yaml`},
		{"Watch the payments as they happen, over gRPC (Ctrl-C ends it; pay with another key meanwhile)", `go tool grpcurl {plaintext}-H "authorization: Bearer $TOKEN" -d '{"customer_id": "'$USER_ID'"}' {grpc} payments.v1.PaymentService/WatchTransactions`},
		{"The same stream over Connect: a message is a byte of flags, four of length, and JSON", `printf '\000\000\000\000\066{"customer_id":"%s"}' "$USER_ID" | curl -sSN {http}/payments.v1.PaymentService/WatchTransactions -H "authorization: Bearer $TOKEN" -H 'content-type: application/connect+json' --data-binary @- --output -`},
	}
	for i := range commands {
		commands[i].Lines = fill.Replace(commands[i].Lines)
	}
	return commands
}
