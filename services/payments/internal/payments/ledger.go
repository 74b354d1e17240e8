package payments

import "fmt"

// MerchantOwner is the owner of the merchant accounts, into which customers pay.
const MerchantOwner = "merchant"

// AccountKind is which side of a payment an account stands on.
type AccountKind string

// The kinds of accounts.
const (
	// KindCustomer is what a customer stands at. Below zero it is money that the outside (a card, a bank) owes for them.
	KindCustomer AccountKind = "CUSTOMER"
	// KindMerchant is what has been taken in.
	KindMerchant AccountKind = "MERCHANT"
)

// AccountKey names an account: an owner has one of each kind in each currency. An account is made with its first entry.
type AccountKey struct {
	Owner    string
	Kind     AccountKind
	Currency Currency
}

// CustomerAccount returns the account of a customer in a currency.
func CustomerAccount(customer CustomerID, currency Currency) AccountKey {
	return AccountKey{Owner: string(customer), Kind: KindCustomer, Currency: currency}
}

// MerchantAccount returns the account into which payments of a currency go.
func MerchantAccount(currency Currency) AccountKey {
	return AccountKey{Owner: MerchantOwner, Kind: KindMerchant, Currency: currency}
}

// Entry is one line of the ledger. It is never changed or removed.
type Entry struct {
	Account AccountKey
	// Amount is in the minor unit of the account's currency: above zero it is put in, below it is taken out.
	Amount int64
}

// Posting is a payment with the entries that move its money.
type Posting struct {
	Payment Payment
	Entries []Entry
}

// capture returns the posting that takes the money of p from its customer and gives it to the merchant.
func capture(p Payment) Posting {
	return Posting{Payment: p, Entries: []Entry{
		{Account: CustomerAccount(p.Customer, p.Currency), Amount: -p.Amount},
		{Account: MerchantAccount(p.Currency), Amount: p.Amount},
	}}
}

// Check returns an error unless the entries are two, on two accounts in the currency of the payment, and move exactly its
// amount. A posting that fails is a mistake in the program, not of a caller.
func (p Posting) Check() error {
	if len(p.Entries) != 2 {
		return fmt.Errorf("payment %s has %d entries, not 2", p.Payment.ID, len(p.Entries))
	}
	debit, credit := p.Entries[0], p.Entries[1]
	switch {
	case p.Payment.Amount <= 0:
		return fmt.Errorf("payment %s has the amount %d, which moves nothing", p.Payment.ID, p.Payment.Amount)
	case debit.Amount != -p.Payment.Amount || credit.Amount != p.Payment.Amount:
		return fmt.Errorf("payment %s of %d has the entries %d and %d",
			p.Payment.ID, p.Payment.Amount, debit.Amount, credit.Amount)
	case debit.Account.Currency != p.Payment.Currency || credit.Account.Currency != p.Payment.Currency:
		return fmt.Errorf("payment %s in %s has entries in %s and %s",
			p.Payment.ID, p.Payment.Currency, debit.Account.Currency, credit.Account.Currency)
	case debit.Account == credit.Account:
		return fmt.Errorf("payment %s has both entries on one account", p.Payment.ID)
	}
	return nil
}

// Post returns the balance after an entry. It returns ErrBalanceOverflow if that is out of the range of an int64.
func Post(balance, amount int64) (int64, error) {
	sum := balance + amount
	if (sum > balance) != (amount > 0) && amount != 0 {
		return balance, ErrBalanceOverflow
	}
	return sum, nil
}
