package payments

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

// OpenAccount says which account to open.
type OpenAccount struct {
	Key ledger.Key
	// Limited says that the balance may not go below -Limit, less what is held. Limit is zero or above.
	Limited  bool
	Limit    int64
	Metadata map[string]string
}

// OpenAccount opens an account, once for each key of a caller. It returns ErrCurrencyUnknown, ledger.ErrAccountExists,
// ErrIdempotencyKeyReused, and the errors of the store.
func (s *Service) OpenAccount(ctx context.Context, caller, key string, open OpenAccount) (Outcome, error) {
	if _, err := ParseCurrency(open.Key.Currency); err != nil {
		return Outcome{}, err
	}
	id := ledger.AccountID(s.newID())
	metadata := cloneMetadata(open.Metadata)
	return s.store.Do(ctx, Command{
		Claim: Claim{Key{caller, methodOpenAccount, key}, open.digest()},
		Needs: Needs{Accounts: []ledger.Key{open.Key}},
		Run: func(w *Work) (Outcome, error) {
			a, err := w.Book.Open(ledger.Account{
				ID: id, Key: open.Key, Limited: open.Limited, Limit: open.Limit, Metadata: metadata, CreatedAt: w.Now(),
			})
			if err != nil {
				return Outcome{}, err
			}
			return Outcome{Account: *a}, nil
		},
	})
}

func (o OpenAccount) digest() Digest {
	h := sha256.New()
	writeText(h, "payments.v1/open_account")
	writeText(h, o.Key.Owner)
	writeText(h, string(o.Key.Kind))
	writeText(h, o.Key.Currency)
	writeBool(h, o.Limited)
	writeNumber(h, uint64(o.Limit))
	writeMetadata(h, o.Metadata)
	return Digest(h.Sum(nil))
}

// TransferOperation is one thing to do in the ledger, by its Kind: ledger.Move and ledger.Pending have Legs,
// ledger.Post, ledger.Void and ledger.Reversal have Of, and ledger.Post an Amount, zero for all that is left.
type TransferOperation struct {
	Kind      ledger.TransferKind
	Legs      []TransferLeg
	ExpiresIn time.Duration // of ledger.Pending; zero means never
	Of        int64
	Amount    int64
}

// TransferLeg is what a transfer is to do to one account.
type TransferLeg struct {
	Account ledger.AccountID
	Amount  int64
}

// Transfer does all operations, in their order, or none, once for each key of a caller. It returns
// ledger.ErrAccountNotFound, ledger.ErrTransferNotFound, ledger.ErrUnbalanced, ledger.ErrOverdrawn,
// ledger.ErrStateConflict (also for transfers of payments, which are not for this), ledger.ErrAmountExceeded and
// ledger.ErrBalanceOverflow, of violations with the path of the operation; ErrIdempotencyKeyReused, and the errors of
// the store.
func (s *Service) Transfer(
	ctx context.Context, caller, key string, operations []TransferOperation, metadata map[string]string,
) (Outcome, error) {
	metadata = cloneMetadata(metadata)
	var needs Needs
	for _, o := range operations {
		for _, l := range o.Legs {
			needs.IDs = append(needs.IDs, l.Account)
		}
		if o.Of != 0 {
			needs.Transfers = append(needs.Transfers, o.Of)
		}
	}
	return s.store.Do(ctx, Command{
		Claim: Claim{Key{caller, methodTransfer, key}, transferDigest(operations, metadata)},
		Needs: needs,
		Run: func(w *Work) (Outcome, error) {
			made := make([]ledger.Transfer, len(operations))
			for i, o := range operations {
				t, err := o.do(w, ledger.Note{Metadata: metadata, At: w.Now()})
				if err != nil {
					return Outcome{}, within(fmt.Sprintf("operations[%d]", i), o.Kind, err)
				}
				made[i] = *t
			}
			return Outcome{Transfers: made}, nil
		},
	})
}

func (o *TransferOperation) do(w *Work, note ledger.Note) (*ledger.Transfer, error) {
	switch o.Kind {
	case ledger.Move, ledger.Pending:
		legs := make([]ledger.Leg, len(o.Legs))
		for i, l := range o.Legs {
			a := w.Book.AccountByID(l.Account)
			if a == nil {
				return nil, ledger.ErrAccountNotFound.With("account_id", string(l.Account))
			}
			legs[i] = ledger.Leg{Account: a.Number, Amount: l.Amount}
		}
		if o.Kind == ledger.Move {
			return w.Book.Move(legs, note)
		}
		var expires time.Time
		if o.ExpiresIn > 0 {
			expires = note.At.Add(o.ExpiresIn)
		}
		return w.Book.Hold(legs, expires, note)
	}
	if w.Book.Reference(o.Of) != "" {
		return nil, ledger.ErrStateConflict.With("state", "PAYMENT")
	}
	switch o.Kind {
	case ledger.Post:
		return w.Book.Post(o.Of, o.Amount, note)
	case ledger.Void:
		return w.Book.Void(o.Of, note)
	case ledger.Reversal:
		return w.Book.Reverse(o.Of, note)
	}
	return nil, fmt.Errorf("an operation of an unknown kind, %q", o.Kind)
}

func transferDigest(operations []TransferOperation, metadata map[string]string) Digest {
	h := sha256.New()
	writeText(h, "payments.v1/transfer")
	writeNumber(h, uint64(len(operations)))
	for _, o := range operations {
		writeText(h, string(o.Kind))
		writeNumber(h, uint64(len(o.Legs)))
		for _, l := range o.Legs {
			writeText(h, string(l.Account))
			writeNumber(h, uint64(l.Amount))
		}
		writeNumber(h, uint64(o.ExpiresIn))
		writeNumber(h, uint64(o.Of))
		writeNumber(h, uint64(o.Amount))
	}
	writeMetadata(h, metadata)
	return Digest(h.Sum(nil))
}

// Account returns an account, as it was at a moment where that is not zero. It returns ledger.ErrAccountNotFound if
// there is none, was none then, or the viewer may not see it: these cannot be told apart.
func (s *Service) Account(ctx context.Context, viewer Viewer, id ledger.AccountID, at time.Time) (ledger.Account, error) {
	a, err := s.store.Account(ctx, id, at)
	if err != nil {
		return ledger.Account{}, err
	}
	if !viewer.owns(a) {
		return ledger.Account{}, ledger.ErrAccountNotFound
	}
	return a, nil
}

// owns says whether a may be shown.
func (v Viewer) owns(a ledger.Account) bool {
	return v.all || v.customer != "" && a.Owner == string(v.customer)
}

// Accounts returns up to limit accounts after the number, those of one owner or all where owner is empty: whether the
// caller may ask for that was decided before. A limit of zero means DefaultPageSize. more says that there are others
// after them.
func (s *Service) Accounts(ctx context.Context, owner string, after int64, limit int) (found []ledger.Account, more bool, err error) {
	limit = pageSize(limit)
	found, err = s.store.Accounts(ctx, owner, after, limit+1)
	if err != nil || len(found) <= limit {
		return found, false, err
	}
	return found[:limit], true, nil
}

// Entries returns up to limit entries of an account, newest first, of transfers before the number, zero meaning the
// newest. It returns ledger.ErrAccountNotFound as Account does. more says that there are older ones.
func (s *Service) Entries(
	ctx context.Context, viewer Viewer, id ledger.AccountID, before int64, limit int,
) (found []AccountEntry, more bool, err error) {
	if _, err := s.Account(ctx, viewer, id, time.Time{}); err != nil {
		return nil, false, err
	}
	limit = pageSize(limit)
	found, err = s.store.Entries(ctx, id, before, limit+1)
	if err != nil || len(found) <= limit {
		return found, false, err
	}
	return found[:limit], true, nil
}

// GetTransfer returns a transfer, with the ids of the accounts of its legs by their numbers. It returns
// ledger.ErrTransferNotFound.
func (s *Service) GetTransfer(ctx context.Context, number int64) (ledger.Transfer, map[int64]ledger.AccountID, error) {
	return s.store.Transfer(ctx, number)
}

// AccountIDs returns the ids of accounts by their numbers.
func (s *Service) AccountIDs(ctx context.Context, numbers []int64) (map[int64]ledger.AccountID, error) {
	return s.store.AccountIDs(ctx, numbers)
}

// TrialBalance returns the sums of all balances.
func (s *Service) TrialBalance(ctx context.Context) (TrialBalance, error) {
	return s.store.TrialBalance(ctx)
}

// Verify proves the books; see Proof.
func (s *Service) Verify(ctx context.Context) (Proof, error) { return s.store.Verify(ctx) }

func pageSize(limit int) int {
	if limit <= 0 {
		return DefaultPageSize
	}
	return min(limit, MaxPageSize)
}

// within returns the error of an operation with its path: before the fields of its violations, or as the one that
// breaks a rule.
func within(path string, kind ledger.TransferKind, err error) error {
	switch kind {
	case ledger.Move, ledger.Pending:
		path += ".move"
	case ledger.Post:
		path += ".post"
	}
	f, ok := fault.As(err)
	switch {
	case ok && len(f.Violations()) > 0:
		return f.Under(path)
	case ok && errors.Is(f, ledger.ErrUnbalanced):
		return f.WithViolation(path, "transfer.balanced", f.Text())
	}
	return err
}
