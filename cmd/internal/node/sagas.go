package node

import (
	"fmt"

	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/gamesession"
	"github.com/bannou-mesh/bannou/services/host"
	sagassvc "github.com/bannou-mesh/bannou/services/sagas"
	"github.com/bannou-mesh/bannou/services/workflows"
)

// sagaPartitions is how many nodes can share the work of one saga. It cannot be changed where there are instances.
const sagaPartitions = 4

// sagas makes the sagas service, which runs the sagas of the suite. Nodes that have it share the work.
func (p parts) sagas() (host.Service, error) {
	all, err := suite(p)
	if err != nil {
		return nil, err
	}
	log, _, err := p.openShared()
	if err != nil {
		return nil, err
	}
	engine, err := sagas.New(sagas.Config{
		Store: log, Bus: p.busOf("sagas"), Caller: sagas.OverMesh(p.client), Sagas: all, Partitions: sagaPartitions, Logger: p.log, MeterProvider: p.meter,
	})
	if err != nil {
		return nil, err
	}
	return sagassvc.New(sagassvc.Config{Engine: engine, Logger: p.log}), nil
}

// suite are the sagas of the suite, with the times that the settings name.
func suite(p parts) ([]*sagas.Saga, error) {
	registration, err := workflows.Registration().Build()
	if err != nil {
		return nil, fmt.Errorf("the saga of registrations: %w", err)
	}
	deletion, err := workflows.Deletion(p.cfg.Accounts.EraseAfter).Build()
	if err != nil {
		return nil, fmt.Errorf("the saga of deletions: %w", err)
	}
	join, err := workflows.Join(p.cfg.GameSession.ConfirmWithin).Build()
	if err != nil {
		return nil, fmt.Errorf("the saga of game sessions: %w", err)
	}
	return []*sagas.Saga{registration, deletion, join}, nil
}

// gameSession makes the game-session service.
func (p parts) gameSession() (host.Service, error) {
	return gamesession.New(gamesession.Config{Factory: p.factory, Bus: p.busOf("game-session"), ConfirmWithin: p.cfg.GameSession.ConfirmWithin})
}
