package faults

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// orderPatience bounds the search for an order of one history.
const orderPatience = 20 * time.Second

// never is later than all that happens: a call without an answer may have its effect at any time after it began.
const never = int64(math.MaxInt64)

// Ordered implements Workload. It holds the history of each key, and of the balance of each account, against one order: whether there
// is one in which everything happened at one moment between its call and its answer, and in which every answer is right. What an
// attempt without an answer did, it did at any time after it, or never.
func (p *payments) Ordered() (a Audit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.charges {
		if len(c.attempts) == 0 {
			continue
		}
		history := make([]porcupine.Operation, len(c.attempts))
		for i, t := range c.attempts {
			history[i] = porcupine.Operation{Input: nil, Call: int64(t.call), Output: *t, Return: int64(t.ret)}
			if t.id == "" {
				history[i].Return = never
			}
		}
		a.inOrder(keyModel(), history, "the answers to the key of "+c.order)
	}
	of := p.accountHistories()
	for n := range of {
		a.inOrder(accountModel(), of[n], "the balance of account "+p.accounts[n])
	}
	return a
}

func (a *Audit) inOrder(model porcupine.Model, history []porcupine.Operation, what string) {
	switch porcupine.CheckOperationsTimeout(model, history, orderPatience) {
	case porcupine.Ok:
		a.Ordered += len(history)
	case porcupine.Unknown:
		a.wrong("%s: no order of %d operations is found within %s, nor that there is none", what, len(history), orderPatience)
	default:
		a.wrong("%s: there is no order of the %d operations in which every answer is right", what, len(history))
	}
}

// key is what has become of a key: whether there is a payment, and which, once an answer says so.
type key struct {
	made bool
	id   string
}

// keyModel is what a key promises: the first that comes makes the payment, all others are answered with it.
func keyModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{key{}} },
		Step: func(state, _, output any) []any {
			k, t := state.(key), output.(attempt)
			switch {
			case t.id == "" && k.made:
				return []any{k}
			case t.id == "":
				return []any{k, key{made: true}}
			case t.replayed && k.made && (k.id == "" || k.id == t.id), !t.replayed && !k.made:
				return []any{key{true, t.id}}
			}
			return nil
		},
	}
	return model.ToModel()
}

// accountOp is something that is done with an account: money that is moved, or a look at the balance.
type accountOp struct {
	amount int64 // moved; below zero it goes
	read   bool
}

// accountAnswer is what was answered.
type accountAnswer struct {
	open    bool // nothing
	refused bool // that there is too little
	balance int64
}

// accountHistories returns what was done with each account.
func (p *payments) accountHistories() [][]porcupine.Operation {
	of := make([][]porcupine.Operation, len(p.accounts))
	for _, t := range p.transfers {
		ret := int64(t.ret)
		if !t.settled {
			ret = never
		}
		answer := accountAnswer{open: !t.settled, refused: t.refused}
		of[t.from] = append(of[t.from], porcupine.Operation{Input: accountOp{amount: -t.amount}, Call: int64(t.call), Output: answer, Return: ret})
		if !t.refused {
			of[t.to] = append(of[t.to], porcupine.Operation{Input: accountOp{amount: t.amount}, Call: int64(t.call), Output: answer, Return: ret})
		}
	}
	for _, r := range p.readings {
		of[r.account] = append(of[r.account], porcupine.Operation{
			Input: accountOp{read: true}, Call: int64(r.call), Output: accountAnswer{balance: r.balance}, Return: int64(r.ret),
		})
	}
	return of
}

// accountModel is what an account promises: the balance is the sum of what was moved, and never below what it may be.
func accountModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{int64(0)} },
		Step: func(state, input, output any) []any {
			balance, op, answer := state.(int64), input.(accountOp), output.(accountAnswer)
			if op.read {
				if balance == answer.balance {
					return []any{balance}
				}
				return nil
			}
			after := balance + op.amount
			short := op.amount < 0 && after < -overdraft
			switch {
			case answer.refused && short:
				return []any{balance}
			case answer.refused || short && !answer.open:
				return nil
			case short:
				return []any{balance}
			case answer.open:
				return []any{balance, after}
			}
			return []any{after}
		},
	}
	return model.ToModel()
}
