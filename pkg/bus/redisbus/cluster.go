package redisbus

import (
	"context"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// refuseCluster says so, instead of commands that fail one by one, when the server is part of a Redis Cluster: there one
// command cannot wait for streams that lie in different slots, as all reading here does. It asks once.
func (d *Driver) refuseCluster(ctx context.Context) error {
	if d.single.Load() {
		return nil
	}
	info, err := d.client.Info(ctx, "cluster").Result()
	inCluster := strings.Contains(info, "cluster_enabled:1") || err != nil && strings.Contains(err.Error(), "not allowed in cluster mode")
	switch {
	case inCluster:
		return fmt.Errorf("%w: the server is part of a Redis Cluster, which is not supported; name a single server, or Sentinels", bus.ErrInvalid)
	case err != nil && passing(err):
		return err
	}
	d.single.Store(true) // or the user may not ask
	return nil
}
