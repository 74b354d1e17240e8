package faults

// paymentsControls are builds of payments that lose, double, and do not balance.
func paymentsControls() []Control {
	const (
		store     = "services/payments/internal/sqlstore/"
		domain    = "services/payments/internal/payments/"
		customers = "services/payments/internal/customers/customers.go"
		events    = "services/payments/app/events.go"
	)
	return []Control{
		{
			// As soon as a batch is decided on its callers are answered, and then it is written, somewhat later: else a
			// kill would have to come within microseconds. Where the connection is lost it is not written again: that
			// would mend it.
			Name: "answers before it commits",
			Edits: []Edit{
				{store + "writer.go", `	err := s.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
`, `	tried := false
	err := s.db.Write(ctx, func(tx *sqldb.Tx) (err error) {
		if tried {
			return sqldb.ErrClosed
		}
		tried = true
`},
				{store + "writer.go", `			it.outcome, it.err = work.Do(commands[i])
		}
`, `			it.outcome, it.err = work.Do(commands[i])
		}
		for _, it := range batch {
			select {
			case <-it.done:
			default:
				close(it.done)
			}
		}
		time.Sleep(20 * time.Millisecond)
`},
				{store + "writer.go", `			for _, it := range batch {
				close(it.done)
			}
`, `			for _, it := range batch {
				select {
				case <-it.done:
				default:
					close(it.done)
				}
			}
`},
				{store + "writer.go", `			it.outcome, it.err = payments.Outcome{}, err
		}
	}
	done(batch)`, `			select {
			case <-it.done:
				continue
			default:
			}
			it.outcome, it.err = payments.Outcome{}, err
		}
	}
	done(batch)`},
			},
			Seen: func(a Audit) int { return a.Lost },
			// Not slow syncs: what a kill finds in a sync has been written, and the system keeps it.
			Faults: []string{
				killedOnSQLite, killedOnPostgres, killedAtSync, diskFull, syncFails, postgresRestarted, restartedAtPace, primaryKilled, standbyDead,
			},
		},
		{
			Name:   "answers with what it has read and a standby may lack",
			Edits:  []Edit{{store + "read.go", `func(tx *sqldb.Tx) error { return tx.Confirm(ctx) }`, `func(*sqldb.Tx) error { return nil }`}},
			Seen:   func(a Audit) int { return a.Lost },
			Faults: []string{standbyDead},
		},
		{
			Name:   "knows no key again",
			Edits:  []Edit{{domain + "charge.go", `Key{caller, methodCharge, key}`, `Key{caller, methodCharge, key + s.newID()}`}},
			Seen:   func(a Audit) int { return a.Doubled },
			Faults: []string{killedOnSQLite, killedOnPostgres, syncsSlow, authAway},
		},
		{
			Name:   "writes a balance that is not the sum of its entries",
			Edits:  []Edit{{store + "write.go", `e.Amount, e.Held, e.BalanceAfter, e.HeldAfter)`, `e.Amount, e.Held, e.BalanceAfter+1, e.HeldAfter)`}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{killedOnSQLite},
		},
		{
			Name: "writes a charge that comes alone by one statement, whether the head is still the same or not",
			Edits: []Edit{{
				store + "alone.go", `h.version = $%d AND h.payments = $%d AND h.accounts = $%d"+`,
				`(h.version = $%d OR h.payments = $%d OR h.accounts = $%d OR true)"+`,
			}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{twoReplicas},
		},
		{
			Name:   "does not learn from the transfers of other replicas what accounts have",
			Edits:  []Edit{{store + "cache.go", `a.Balance, a.Held = e.BalanceAfter, e.HeldAfter`, `_ = a`}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{twoReplicas},
		},
		{
			Name:   "charges whoever was known, however long auth was not heard",
			Edits:  []Edit{{customers, ` || d.opts.Clock.Now().Sub(d.heard) > d.opts.Staleness`, ``}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{authAway},
		},
		{
			Name:   "charges on what was known before auth was away, until the events have come that were missed",
			Edits:  []Edit{{events, `directory.Resumed()`, ``}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{authAway},
		},
		{
			Name:   "does not hear of locks",
			Edits:  []Edit{{events, `directory.Forget(payments.CustomerID(user))`, `_ = payments.CustomerID(user)`}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{authAway},
		},
	}
}
