package facade

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"unicode/utf8"
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

// listed is what /v1.0/metadata says.
type listed struct {
	ID              string               `json:"id"`
	RuntimeVersion  string               `json:"runtimeVersion"`
	EnabledFeatures []string             `json:"enabledFeatures"`
	Actors          []string             `json:"actors"`
	Components      []listedComponent    `json:"components"`
	Subscriptions   []listedSubscription `json:"subscriptions"`
	Extended        map[string]string    `json:"extended"`
	App             *listedApp           `json:"appConnectionProperties,omitempty"`
}

type listedApp struct {
	Protocol string `json:"protocol"`
	Address  string `json:"channelAddress"`
}

func (s *Service) metadata() listed {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := listed{
		ID: s.cfg.AppID, RuntimeVersion: "bannou-" + s.cfg.Version, EnabledFeatures: []string{}, Actors: []string{},
		Components: s.components(), Subscriptions: s.subscriptions(), Extended: maps.Clone(s.extended),
	}
	if s.channel != nil {
		m.App = &listedApp{Protocol: cmp.Or(s.cfg.AppProtocol, protocolHTTP), Address: s.cfg.AppAddress}
	}
	return m
}

// getMetadata is GET /v1.0/metadata.
func (s *Service) getMetadata(w http.ResponseWriter, _ *http.Request) error {
	answerJSON(w, http.StatusOK, s.metadata())
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
	for _, d := range slices.Concat(s.deliveries, s.streams) {
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
	if err := s.extend(r.PathValue("key"), string(value)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) extend(key, value string) error {
	if !utf8.ValidString(key) || !utf8.ValidString(value) || len(key)+len(value) > maxExtendedBytes {
		return malformed("a value of the metadata is text in UTF-8, of at most %d bytes with its name", maxExtendedBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.extended[key]; !has && len(s.extended) >= maxExtended {
		return malformed("there are %d such values already, which is the limit", maxExtended)
	}
	s.extended[key] = value
	return nil
}

// maxExtended bounds what an app may put into the metadata.
const maxExtended = 256

// maxExtendedBytes bounds each of them.
const maxExtendedBytes = 64 << 10
