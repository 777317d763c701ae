package migration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/services/migration/migrationapi"
)

// other is the other way.
func other(way string) string {
	if way == Native {
		return Dapr
	}
	return Native
}

// verdict says whether an item may go to a way, and why in a sentence.
func (s *Service) verdict(ctx context.Context, item *Item, to string, found *migrationapi.MigrationComparison) (safe bool, why string) {
	if item.Running == to {
		return true, "it runs on " + to + " already"
	}
	if len(item.Obstacles) > 0 {
		return false, item.Obstacles[0]
	}
	if err := s.cfg.Check(ctx, *item, to); err != nil {
		return false, err.Error()
	}
	switch {
	case item.Block == BlockMesh:
		return true, "nothing is known that stands in the way of its calls"
	case item.Kind == KindTopic && to == Native:
		return true, "no subscriber of Dapr reads it any more"
	case item.Kind == KindTopic: // also where its events are counted: what is published in one place is missing in the other
		return true, "it is published in envelopes then, which native subscribers take apart"
	case found == nil && item.Block == BlockState:
		return false, "nothing is known: the store has no mirror; give it one (state.mirrors." + item.Name + ")"
	case found == nil:
		return false, "nothing is known: its events are not counted on both ways; name its topics in messaging.mirrorTopics"
	default:
		return s.clean(found)
	}
}

// clean judges what comparing has found.
func (s *Service) clean(c *migrationapi.MigrationComparison) (safe bool, why string) {
	within := time.Duration(float64(c.Seconds) * float64(time.Second)).String()
	switch {
	case c.Different > 0:
		return false, fmt.Sprintf("%d of %d compared within %s differed: %s", c.Different, c.Compared, within, reasons(c.Reasons))
	case c.Failures > 0:
		return false, fmt.Sprintf("%d could not be compared within %s, as one of the places did not answer (%s)", c.Failures, within, c.LastFailure)
	case c.Uncarried > 0:
		return false, fmt.Sprintf("%d changes were not carried to the other place since the node started: bring those keys in line, and start it anew", c.Uncarried)
	case c.Pending > 0:
		return false, fmt.Sprintf("%d changes wait to be carried to the other place, which is away or slow: ask again when it has them", c.Pending)
	case c.Compared < s.cfg.Least:
		return false, fmt.Sprintf("only %d were compared within %s; %d are wanted", c.Compared, within, s.cfg.Least)
	default:
		return true, fmt.Sprintf("%d were compared within %s, and all were the same", c.Compared, within)
	}
}

func reasons(counts map[string]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		if counts[reason] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[reason], reason))
		}
	}
	return strings.Join(parts, ", ")
}
