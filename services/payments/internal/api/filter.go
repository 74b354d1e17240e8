package api

import "github.com/concordat-dev/concordat/services/payments/internal/payments"

func parseFilter(string) ([]payments.Condition, error) { return nil, nil }
