// Command standalone runs auth, users, payments and the gateway in one process, on embedded storage, with certificates
// that it makes itself.
package main

import (
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/standalone/app"
)

func main() {
	kit.MainOf(settings.Program{
		Name:        app.Name,
		Description: "Standalone runs auth, users, payments and the gateway in one process, on embedded storage.",
		Shared:      true,
	}, app.Run)
}
