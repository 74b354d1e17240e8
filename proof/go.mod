module github.com/concordat-dev/concordat/proof

go 1.26.7

require (
	github.com/concordat-dev/concordat/gen v0.0.0
	github.com/concordat-dev/concordat/kit v0.0.0
)

replace github.com/concordat-dev/concordat/gen => ../gen

replace github.com/concordat-dev/concordat/kit => ../kit
