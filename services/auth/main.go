// Command auth keeps accounts and sessions: auth.v1.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/services/auth/app"
)

func main() {
	kit.Main(app.Name, "Keeps accounts and sessions: who a user is, how they sign in, whether they may act (auth.v1).", app.Run)
}
