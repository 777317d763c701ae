package guard

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	strangerEvery = time.Minute
	maxStrangers  = 1000 // of which each is told apart; beyond that nobody new is told of until the minute is over
)

// strangers are addresses of nodes with another token, told of in the log once in strangerEvery.
type strangers struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]time.Time
}

func (s *strangers) tell(r *http.Request) {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	if s.log != nil && s.first(address, time.Now()) {
		s.log.WarnContext(r.Context(), "a node calls with another token than this node's: the tokens of the two differ, and its calls are sent "+
			"back; give both the same", "address", address)
	}
}

func (s *strangers) first(address string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, told := s.told[address]; told && now.Sub(at) < strangerEvery {
		return false
	}
	if len(s.told) >= maxStrangers {
		for other, at := range s.told {
			if now.Sub(at) >= strangerEvery {
				delete(s.told, other)
			}
		}
		if len(s.told) >= maxStrangers {
			return false
		}
	}
	if s.told == nil {
		s.told = map[string]time.Time{}
	}
	s.told[address] = now
	return true
}
