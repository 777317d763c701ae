package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/filelock"
)

// claimFolder keeps a second node out of the data folder of a node that has the bus or stores in memory: the two would
// share some of their stores and be strangers otherwise. Nodes with all of that on servers may share a folder. The claim
// ends when the file is closed, or with the process. The file is nil when there is nothing to claim.
func claimFolder(cfg *config.Config, stores []state.StoreConfig) (*os.File, error) {
	keeps := func(backend string) bool {
		return slices.ContainsFunc(stores, func(s state.StoreConfig) bool { return s.Backend == backend })
	}
	if !keeps("sqlite") || cfg.Messaging.Backend != "memory" && !keeps("memory") {
		return nil, nil
	}
	f, err := os.OpenFile(filepath.Join(cfg.DataDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder cannot be claimed: %w", err)
	}
	switch err := filelock.Lock(f); {
	case errors.Is(err, filelock.ErrTaken):
		return nil, errors.Join(fmt.Errorf("the data folder %s is in use by another node: stop that one, or choose another folder with --data-dir", cfg.DataDir), f.Close())
	case err != nil: // a file system without locks
		return nil, f.Close()
	default:
		return f, nil
	}
}
