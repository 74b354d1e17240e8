module github.com/concordat-dev/concordat/services/standalone

go 1.26.7

require (
	github.com/concordat-dev/concordat/gen v0.0.0
	github.com/concordat-dev/concordat/kit v0.0.0
	github.com/concordat-dev/concordat/services/auth v0.0.0
	github.com/concordat-dev/concordat/services/gateway v0.0.0
	github.com/concordat-dev/concordat/services/payments v0.0.0
	github.com/concordat-dev/concordat/services/users v0.0.0
)

replace github.com/concordat-dev/concordat/gen => ../../gen

replace github.com/concordat-dev/concordat/kit => ../../kit

replace github.com/concordat-dev/concordat/services/auth => ../../services/auth

replace github.com/concordat-dev/concordat/services/users => ../../services/users

replace github.com/concordat-dev/concordat/services/payments => ../../services/payments

replace github.com/concordat-dev/concordat/services/gateway => ../../services/gateway
