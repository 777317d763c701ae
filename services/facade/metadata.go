package facade

import (
	"maps"
	"net/http"
	"slices"
)

type listedComponent struct {
	Name         string   `json:"name"`
	Type         string   `json:"type"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities,omitempty"`
}

type listedRule struct {
	Match string `json:"match,omitempty"`
	Path  string `json:"path"`
}

type listedSubscription struct {
	PubSub     string            `json:"pubsubname"`
	Topic      string            `json:"topic"`
	Rules      []listedRule      `json:"rules"`
	DeadLetter string            `json:"deadLetterTopic"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// getMetadata is GET /v1.0/metadata.
func (s *Service) getMetadata(w http.ResponseWriter, _ *http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := map[string]any{
		"id": s.cfg.AppID, "runtimeVersion": "bannou-" + s.cfg.Version, "enabledFeatures": []string{}, "actors": []string{},
		"components": s.components(), "subscriptions": s.subscriptions(), "extended": maps.Clone(s.extended),
	}
	if s.cfg.AppAddress != "" {
		answer["appConnectionProperties"] = map[string]any{"protocol": "http", "channelAddress": s.cfg.AppAddress}
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
}

func (s *Service) components() []listedComponent {
	list := []listedComponent{}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Stores)) {
		list = append(list, listedComponent{Name: name, Type: s.cfg.Stores[name].Kind, Version: "v1", Capabilities: []string{"ETAG", "TRANSACTIONAL", "TTL"}})
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.PubSubs)) {
		list = append(list, listedComponent{Name: name, Type: s.cfg.PubSubs[name].Kind, Version: "v1"})
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Secrets)) {
		list = append(list, listedComponent{Name: name, Type: "secretstores.local", Version: "v1"})
	}
	return list
}

func (s *Service) subscriptions() []listedSubscription {
	list := []listedSubscription{}
	for _, d := range s.deliveries {
		one := listedSubscription{PubSub: d.wanted.PubSub, Topic: d.wanted.Topic, DeadLetter: d.wanted.DeadLetterTopic, Metadata: d.wanted.Metadata, Rules: []listedRule{}}
		for _, r := range d.wanted.Rules {
			one.Rules = append(one.Rules, listedRule(r))
		}
		if d.wanted.Default != "" {
			one.Rules = append(one.Rules, listedRule{Path: d.wanted.Default})
		}
		list = append(list, one)
	}
	return list
}

// putMetadata is PUT /v1.0/metadata/{key}: a word that GET shows from then on.
func (s *Service) putMetadata(w http.ResponseWriter, r *http.Request) error {
	value, err := s.body(w, r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.extended) >= maxExtended && s.extended[r.PathValue("key")] == "" {
		return malformed("there are %d such values already, which is the limit", maxExtended)
	}
	s.extended[r.PathValue("key")] = string(value)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// maxExtended bounds what an app may put into the metadata.
const maxExtended = 256
