package api

import (
	"go.einride.tech/aip/ordering"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// parseOrder returns the order that order_by says in the syntax of AIP-132. It returns ErrOrderInvalid.
func parseOrder(text string) (users.Order, error) {
	var asked ordering.OrderBy
	if err := asked.UnmarshalString(text); err != nil {
		return users.Order{}, users.ErrOrderInvalid.WithViolation("order_by", "order_by.syntax", `must be a field, and " desc" for the reverse`).Because(err)
	}
	switch len(asked.Fields) {
	case 0:
		return users.Order{}, nil
	case 1:
	default:
		return users.Order{}, users.ErrOrderInvalid.WithViolation("order_by", "order_by.single", "must be one field: users who are equal are ordered by their id")
	}
	by, ok := map[string]users.OrderBy{
		"created_at": users.ByCreatedAt, "updated_at": users.ByUpdatedAt, "display_name": users.ByDisplayName, "email": users.ByEmail,
	}[asked.Fields[0].Path]
	if !ok {
		return users.Order{}, users.ErrOrderInvalid.WithViolation("order_by", "order_by.field", "must be created_at, updated_at, display_name or email")
	}
	return users.Order{By: by, Desc: asked.Fields[0].Desc}, nil
}
