// Command gateway is the edge: the one door through which people and scripts reach the services, as REST with JSON, Connect and
// gRPC-Web on one listener and as gRPC on the other.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/gateway/app"
)

func main() {
	kit.Main(kit.Edge, "The edge of Concordat: REST, Connect and gRPC-Web on one port, gRPC on the other.", app.Run)
}
