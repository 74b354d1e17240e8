// Command payments serves payments.v1: it moves money, once for each key, on a ledger in a database of its own.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/payments/app"
)

func main() {
	kit.Main("payments", "Payments charges customers and serves payments.v1 over gRPC.", app.Run)
}
