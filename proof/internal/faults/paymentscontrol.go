package faults

// paymentsControls are builds of payments that lose, double, and do not balance.
func paymentsControls() []Control {
	const (
		store  = "services/payments/internal/sqlstore/"
		domain = "services/payments/internal/payments/"
	)
	return []Control{
		{
			// As soon as a batch is decided on its callers are answered, and then it is written, somewhat later: else a kill
			// would have to come within microseconds.
			Name: "answers before it commits",
			Edits: []Edit{
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
`, `			select {
			case <-it.done:
				continue
			default:
			}
			it.outcome, it.err = payments.Outcome{}, err
`},
			},
			Seen: func(a Audit) int { return a.Lost },
			// Not slow syncs: what a kill finds in a sync has been written, and the system keeps it.
			Faults: []string{
				killedOnSQLite, killedOnPostgres, killedAtSync, diskFull, syncFails, postgresRestarted, primaryKilled, standbyDead,
			},
		},
		{
			Name:   "knows no key again",
			Edits:  []Edit{{domain + "charge.go", `Key{caller, methodCharge, key}`, `Key{caller, methodCharge, key + s.newID()}`}},
			Seen:   func(a Audit) int { return a.Doubled },
			Faults: []string{killedOnSQLite, killedOnPostgres},
		},
		{
			Name:   "writes a balance that is not the sum of its entries",
			Edits:  []Edit{{store + "write.go", `e.Held, e.BalanceAfter, e.HeldAfter)`, `e.Held, e.BalanceAfter+1, e.HeldAfter)`}},
			Seen:   func(a Audit) int { return len(a.Wrong) },
			Faults: []string{killedOnSQLite},
		},
	}
}
