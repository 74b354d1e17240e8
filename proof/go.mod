module github.com/concordat-dev/concordat/proof

go 1.26.7

require (
	github.com/alecthomas/kong v1.17.0
	go.yaml.in/yaml/v3 v3.0.5
)

replace github.com/concordat-dev/concordat/gen => ../gen

replace github.com/concordat-dev/concordat/kit => ../kit
