package faults_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/servers"
)

// What happens to instances, and to the servers that a mesh has its registry and its bus on. TestMeshOnRabbitMQ
// and TestMeshPartitioned run beside it, in processes of their own: each fault counts the goroutines that it leaves in this one.
func TestMesh(t *testing.T) {
	t.Parallel()
	f := bareFleet(t).manned(t)
	for _, fault := range slices.Concat(instanceFaults(), serverFaultsOfMesh(), []meshFault{mappingsChanged(1000)}) {
		t.Run(fault.name, func(t *testing.T) { endureMesh(t, f, fault) })
	}
}

// RabbitMQ takes some seconds to start, twice: only a long run waits for that.
func TestMeshOnRabbitMQ(t *testing.T) {
	if !*long {
		t.Skip("in a long run only, `make faults`")
	}
	t.Parallel()
	apart(t, 0, func(t *testing.T) {
		bus := servers.NewRabbitMQ(t, servers.RabbitOptions{})
		f := newFleet(t, "rabbitmq", bus.Server, bus.URL).manned(t)
		for _, fault := range []meshFault{busKilled(1), mappingsChanged(300)} {
			t.Run(fault.name, func(t *testing.T) { endureMesh(t, f, fault) })
		}
	})
}

func instanceFaults() []meshFault {
	return []meshFault{
		{name: "instance killed", times: 5, harm: func(ctx context.Context, r *meshRun) error {
			gone := r.of("alpha")[0]
			return errors.Join(gone.kill(), r.comes(ctx, gone, "127.0.0.1:0"))
		}},
		{name: "all instances of an app-id but one killed", times: 2, harm: func(ctx context.Context, r *meshRun) error {
			first, second := r.of("alpha")[0], r.of("alpha")[1]
			return errors.Join(first.kill(), second.kill(), faults.Pause(ctx, briefly(time.Second)),
				r.comes(ctx, first, "127.0.0.1:0"), r.comes(ctx, second, "127.0.0.1:0"))
		}},
		{name: "instance ended by SIGTERM", times: 10, harm: func(ctx context.Context, r *meshRun) error {
			gone := r.of("alpha")[0]
			return errors.Join(gone.stop(ctx), r.comes(ctx, gone, "127.0.0.1:0"))
		}, check: func(t *testing.T, totals faults.MeshTotals) {
			assert.Zero(t, totals.OnceFailed, "an instance that drains breaks no call off")
		}},
		{name: "instance down and up at the same address", times: 3, harm: func(ctx context.Context, r *meshRun) error {
			gone := r.of("alpha")[0]
			return errors.Join(gone.kill(), r.comes(ctx, gone, gone.address))
		}},
		{name: "instance paused (SIGSTOP) for 6 s", times: 1, harm: func(ctx context.Context, r *meshRun) error {
			in := r.of("alpha")[0]
			return errors.Join(in.pause(), faults.Pause(ctx, lasting(6*time.Second)), in.resume())
		}},
		{name: "another app-id at a killed instance's address", times: 2, harm: func(ctx context.Context, r *meshRun) error {
			gone := r.of("alpha")[0]
			killed := gone.kill()
			other, err := r.start(ctx, "beta", gone.address)
			if err != nil {
				return errors.Join(killed, err)
			}
			delete(r.instances, other.InstanceID)
			return errors.Join(killed, r.answers(ctx, other), r.comes(ctx, gone, "127.0.0.1:0"), other.stop(ctx))
		}},
		{name: "instance slow (300 ms)", times: 1, harm: func(ctx context.Context, r *meshRun) error {
			in := r.of("alpha")[0]
			return errors.Join(in.behave(ctx, "slow 300ms"), faults.Pause(ctx, briefly(2*time.Second)), in.behave(ctx, "ok"))
		}},
		{name: "instance answers 500", times: 1, harm: behaving("status 500")},
		{name: "instance answers 503", times: 1, harm: behaving("status 503")},
		{name: "instance closes connections without an answer", times: 1, harm: behaving("reset")},
		{name: "instance registers and deregisters every 20 ms", times: 1, harm: func(ctx context.Context, r *meshRun) error {
			in := r.of("alpha")[0]
			_, began := in.ask(ctx, "flap 20ms", "flaps")
			waited := faults.Pause(ctx, briefly(2*time.Second))
			_, ended := in.ask(ctx, "flap 0", "flaps")
			return errors.Join(began, waited, ended, r.answers(ctx, in))
		}},
	}
}

// behaving has an instance answer badly for a while.
func behaving(manner string) func(ctx context.Context, r *meshRun) error {
	return func(ctx context.Context, r *meshRun) error {
		in := r.of("alpha")[0]
		return errors.Join(in.behave(ctx, manner), faults.Pause(ctx, briefly(2*time.Second)), in.behave(ctx, "ok"))
	}
}

func serverFaultsOfMesh() []meshFault {
	return []meshFault{
		{name: "the registry's Redis killed", times: 2, harm: func(ctx context.Context, r *meshRun) error {
			return errors.Join(r.registry.Kill(), faults.Pause(ctx, briefly(time.Second)), r.registry.Restart(ctx))
		}},
		{name: "the registry's Redis killed, then an instance", times: 1, harm: func(ctx context.Context, r *meshRun) error {
			gone := r.of("alpha")[0]
			return errors.Join(r.registry.Kill(), gone.kill(), faults.Pause(ctx, briefly(time.Second)), r.registry.Restart(ctx),
				r.comes(ctx, gone, "127.0.0.1:0"))
		}},
		{name: "the registry's Redis emptied", times: 2, harm: func(ctx context.Context, r *meshRun) error {
			return withRedis(r.servers.Registry, func(c *redis.Client) error {
				return errors.Join(c.FlushAll(ctx).Err(), faults.Pause(ctx, briefly(3*time.Second))) // the caller reads it every 2 s
			})
		}},
		busKilled(2),
		{name: "registry and bus killed", times: 1, harm: func(ctx context.Context, r *meshRun) error {
			return errors.Join(r.registry.Kill(), r.bus.Kill(), faults.Pause(ctx, briefly(time.Second)), r.registry.Restart(ctx), r.bus.Restart(ctx))
		}},
	}
}

// busKilled kills the bus, and an instance while it is away: the caller learns of the one that comes from the registry.
func busKilled(times int) meshFault {
	return meshFault{name: "the bus killed, then an instance", times: times, harm: func(ctx context.Context, r *meshRun) error {
		gone := r.of("beta")[0]
		return errors.Join(r.bus.Kill(), gone.kill(), r.comes(ctx, gone, "127.0.0.1:0"), r.bus.Restart(ctx))
	}}
}

// comes starts an instance for one that has gone, and returns when it answers calls.
func (r *meshRun) comes(ctx context.Context, gone *instance, listen string) error {
	in, err := r.replace(ctx, gone, listen)
	if err != nil {
		return err
	}
	return r.answers(ctx, in)
}

// mappingsChanged has the services change places under load, so often in a long run.
func mappingsChanged(changes int) meshFault {
	if !*long {
		changes = 100
	}
	return meshFault{name: fmt.Sprintf("mapping changed %d times", changes), times: 1, harm: func(ctx context.Context, r *meshRun) error {
		places := []string{"beta", "alpha"}
		for range changes {
			m, err := r.link.Registry.SetMappings(ctx, map[string]string{"work": places[0], "play": places[1]}, "")
			if err != nil {
				return err
			}
			r.ledger.Mapped(m)
			slices.Reverse(places)
		}
		if seen := r.ledger.Versions(); seen < changes/2 {
			return fmt.Errorf("calls began under %d of %d versions only", seen, changes)
		}
		return r.mapTo(ctx, "alpha", "beta")
	}}
}
