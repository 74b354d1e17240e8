module github.com/concordat-dev/concordat/services/users

go 1.26.7

require (
	github.com/concordat-dev/concordat/gen v0.0.0
	github.com/concordat-dev/concordat/kit v0.0.0
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/concordat-dev/concordat/gen => ../../gen

replace github.com/concordat-dev/concordat/kit => ../../kit
