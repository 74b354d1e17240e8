// Command payments serves payments.v1: it moves money, once for each key, on a ledger in a database of its own.
// `payments verify` proves the books.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/payments/app"
)

func main() {
	kit.Main("payments", "Payments charges customers and serves payments.v1 over gRPC.", app.Run, app.Commands()...)
}
