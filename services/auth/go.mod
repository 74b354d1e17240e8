module github.com/concordat-dev/concordat/services/auth

go 1.26.7

require (
	github.com/concordat-dev/concordat/gen v0.0.0
	github.com/concordat-dev/concordat/kit v0.0.0
	golang.org/x/crypto v0.58.0 // indirect
)

replace github.com/concordat-dev/concordat/gen => ../../gen

replace github.com/concordat-dev/concordat/kit => ../../kit
