package payments

import (
	"errors"
	"math"
	"testing"
)

func TestPostNeverLeavesTheRangeOfAnInt64(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		balance, amount, want int64
		overflow              bool
	}{
		"up":                      {balance: 1, amount: 2, want: 3},
		"down":                    {balance: 1, amount: -2, want: -1},
		"by nothing at the top":   {balance: math.MaxInt64, amount: 0, want: math.MaxInt64},
		"up to the top":           {balance: math.MaxInt64 - 1, amount: 1, want: math.MaxInt64},
		"over the top":            {balance: math.MaxInt64, amount: 1, overflow: true},
		"far over the top":        {balance: math.MaxInt64, amount: math.MaxInt64, overflow: true},
		"down to the bottom":      {balance: math.MinInt64 + 1, amount: -1, want: math.MinInt64},
		"below the bottom":        {balance: math.MinInt64, amount: -1, overflow: true},
		"far below the bottom":    {balance: math.MinInt64, amount: math.MinInt64, overflow: true},
		"from bottom to the top":  {balance: math.MinInt64, amount: math.MaxInt64, want: -1},
		"from the top to nothing": {balance: math.MaxInt64, amount: -math.MaxInt64, want: 0},
	} {
		got, err := Post(c.balance, c.amount)
		if c.overflow {
			if !errors.Is(err, ErrBalanceOverflow) || got != c.balance {
				t.Errorf("%s: %d, %v", name, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

func TestCaptureMakesAPostingThatChecks(t *testing.T) {
	t.Parallel()
	p := Payment{ID: "p", Customer: ann, Amount: 1, Currency: "EUR"}
	if err := capture(p).Check(); err != nil {
		t.Error(err)
	}
	p.Amount = math.MaxInt64
	if err := capture(p).Check(); err != nil {
		t.Error(err)
	}
	p.Amount = math.MinInt64 // whose negative is itself
	if err := capture(p).Check(); err == nil {
		t.Error("an amount without a counterpart was accepted")
	}
}
