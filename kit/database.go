package kit

import (
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Database is the settings of a service that keeps data of its own, beside its data directory.
type Database struct {
	DatabaseURL         settings.Secret `name:"database-url" help:"PostgreSQL database to keep the data in, as postgres://user:password@host:5432/database?sslmode=verify-full. Several hosts may be given; the one that takes writes is used. Empty means SQLite in the data directory." placeholder:"URL"`
	DatabaseConnections int             `name:"database-connections" help:"How many connections to PostgreSQL are open at once. Health checks and the event log need two more." default:"16"`
}

// Validate finds settings that cannot be meant.
func (d *Database) Validate() []settings.Problem {
	var problems []settings.Problem
	if d.DatabaseURL != "" {
		if err := d.URL().Check(); err != nil {
			problems = append(problems, settings.Wrong(&d.DatabaseURL, "%v", err))
		}
	}
	if d.DatabaseConnections < sqldb.LeastConnections {
		problems = append(problems, settings.Wrong(&d.DatabaseConnections, "must be at least %d", sqldb.LeastConnections))
	}
	return problems
}

// URL returns the database, which is none where the data directory is used.
func (d *Database) URL() sqldb.URL { return sqldb.URL(d.DatabaseURL.Reveal()) }

// Setting returns the name of the setting that says where the data is: "--database-url" or "--data".
func (d *Database) Setting() string {
	if d.DatabaseURL != "" {
		return "--database-url"
	}
	return "--data"
}
