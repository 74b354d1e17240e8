package payments

import (
	"errors"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
)

func TestParseCurrencyKnowsTheActiveCodes(t *testing.T) {
	t.Parallel()
	for code, exponent := range map[string]int{
		"EUR": 2, "USD": 2, "GBP": 2, "CHF": 2, "XCG": 2, "ZWG": 2, "VED": 2, "SLE": 2, "XAD": 2,
		"JPY": 0, "KRW": 0, "ISK": 0, "XOF": 0, "UGX": 0,
		"KWD": 3, "TND": 3, "BHD": 3,
		"CLF": 4, "UYW": 4,
	} {
		c, err := ParseCurrency(code)
		if err != nil || string(c) != code || c.Exponent() != exponent {
			t.Errorf("%s: %q, exponent %d, %v; want exponent %d", code, c, c.Exponent(), err, exponent)
		}
	}
}

func TestParseCurrencyRefusesWhatIsNotMoney(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"nothing":              "",
		"never assigned":       "ZZZ",
		"small letters":        "eur",
		"too long":             "EURO",
		"with a space":         "EUR ",
		"gold":                 "XAU",
		"the code for tests":   "XTS",
		"no currency":          "XXX",
		"replaced by the euro": "BGN",
		"replaced by XCG":      "ANG",
		"replaced by SLE":      "SLL",
		"replaced by ZWG":      "ZWL",
		"an old currency":      "DEM",
	} {
		c, err := ParseCurrency(code)
		if !errors.Is(err, ErrCurrencyUnknown) || c != "" {
			t.Errorf("%s: %q, %v", name, c, err)
		}
	}
	f, _ := fault.As(ErrCurrencyUnknown)
	if v := f.Violations(); len(v) != 1 || v[0].Field != "currency" {
		t.Errorf("the violations %+v do not name the field", v)
	}
}

// Of 178 codes on list one, 13 have no minor unit: metals, bond units, the SDR, the SUCRE, the ADB unit, tests, none.
func TestTheTableHasEveryActiveCodeWithAMinorUnit(t *testing.T) {
	t.Parallel()
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	found := 0
	for _, a := range letters {
		for _, b := range letters {
			for _, c := range letters {
				if _, err := ParseCurrency(string([]rune{a, b, c})); err == nil {
					found++
				}
			}
		}
	}
	if found != 165 {
		t.Errorf("%d codes, want 165", found)
	}
}
