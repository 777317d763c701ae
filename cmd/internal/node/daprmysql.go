package node

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/services/facade"
)

// daprMySQL is the driver of a state.mysql component, and what the store is in it.
func (d *dapr) daprMySQL(c facade.Component, prefix string, store *state.StoreConfig) (state.Driver, error) {
	switch {
	case prefix == "":
		return nil, errors.New("keyPrefix none would make every row of the table one of this store: name a prefix that the apps share")
	case c.Metadata["pempath"] != "":
		return nil, errors.New("pemPath is not read: name the certificate's authority where the system keeps them, and end the connectionString with tls=true")
	}
	dsn, err := daprDSN(c.Metadata["connectionstring"])
	if err != nil {
		return nil, err
	}
	store.Backend, store.KeyPrefix = "mysql", prefix+"||"
	store.TableName = cmp.Or(c.Metadata["schemaname"], "dapr_state_store") + "." + cmp.Or(c.Metadata["tablename"], "state")
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn, MaxConns: d.cfg.State.MySQLMaxConns, Logger: d.log})
	if err != nil {
		return nil, fmt.Errorf("connectionString: %w", err)
	}
	return driver, nil
}

// daprDSN is a connection string of Dapr's, which has no database before its options, as that of the driver, which has one that is always there:
// the table is named with its own.
func daprDSN(text string) (string, error) {
	at := max(strings.LastIndex(text, "/"), 0) // as the driver has it: a password, or the path of a socket, may have slashes
	server, options := text[:at], text[at:]
	if !strings.Contains(server, "@") {
		return "", errors.New("connectionString is to be user:password@tcp(host:3306)/?options")
	}
	_, options, _ = strings.Cut(options, "?")
	dsn := server + "/information_schema"
	if options != "" {
		dsn += "?" + options
	}
	return dsn, nil
}
