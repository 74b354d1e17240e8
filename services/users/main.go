// Command users serves users.v1: the profiles, and the events of their changes, in a database of its own. `users backup`, `users
// restore` and `users verify` look after that.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/users/app"
)

func main() {
	kit.Main("users", "Users keeps the profiles of users and serves users.v1 over gRPC.", app.Run, app.Commands()...)
}
