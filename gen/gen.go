// Package gen holds what is generated from the contract: Go packages under go/, and the OpenAPI description below.
// Everything in the folders is written by `go tool buf generate`; this file alone is not.
package gen

import _ "embed"

// OpenAPI describes the REST face of all services (OpenAPI 3.1, YAML).
//
//go:embed openapi/concordat.openapi.yaml
var OpenAPI []byte
