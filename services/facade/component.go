package facade

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Resources are what Dapr's YAML files describe.
type Resources struct {
	Components    []Component
	Subscriptions []Subscription
}

// A Component is one that an app may name.
type Component struct {
	Name     string
	Type     string // one of Kinds
	Version  string
	Metadata map[string]string // names in lower case: Dapr does not look at case
	Scopes   []string          // app-ids that may use it; none: all
	File     string            // where it was read
}

// Kinds are the types of components that there is a native driver for.
func Kinds() []string {
	return []string{
		"lock.redis", "pubsub.in-memory", "pubsub.rabbitmq", "pubsub.redis", "secretstores.local.env", "secretstores.local.file",
		"state.in-memory", "state.mysql", "state.redis",
	}
}

// document is a resource of either kind, as it is written.
type document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec   yaml.Node `yaml:"spec"`
	Scopes []string  `yaml:"scopes"`
}

type componentSpec struct {
	Type     string `yaml:"type"`
	Version  string `yaml:"version"`
	Metadata []struct {
		Name         string    `yaml:"name"`
		Value        yaml.Node `yaml:"value"`
		EnvRef       string    `yaml:"envRef"`
		SecretKeyRef struct {
			Name string `yaml:"name"`
			Key  string `yaml:"key"`
		} `yaml:"secretKeyRef"`
	} `yaml:"metadata"`
	InitTimeout  string `yaml:"initTimeout"`
	IgnoreErrors bool   `yaml:"ignoreErrors"`
}

// Load reads the resources that are for the app from the .yaml and .yml files of a folder. What it cannot make good for is an error: a kind of
// component without a native driver, a resource of another kind, a secret that is not in the environment. Values are never repeated in errors.
func Load(folder, appID string) (Resources, error) {
	var all Resources
	entries, err := os.ReadDir(folder)
	if err != nil {
		return all, fmt.Errorf("read the components of Dapr: %w", err)
	}
	for _, entry := range entries {
		if extension := filepath.Ext(entry.Name()); entry.IsDir() || extension != ".yaml" && extension != ".yml" {
			continue
		}
		name := filepath.Join(folder, entry.Name())
		content, err := os.ReadFile(name)
		if err != nil {
			return all, fmt.Errorf("read the components of Dapr: %w", err)
		}
		read, err := parse(content, entry.Name())
		if err != nil {
			return all, fmt.Errorf("%s: %w", name, err)
		}
		all.Components = append(all.Components, read.Components...)
		all.Subscriptions = append(all.Subscriptions, read.Subscriptions...)
	}
	all.Components = slices.DeleteFunc(all.Components, func(c Component) bool { return !inScope(c.Scopes, appID) })
	all.Subscriptions = slices.DeleteFunc(all.Subscriptions, func(s Subscription) bool { return !inScope(s.scopes, appID) })
	names := map[string]string{}
	for _, c := range all.Components {
		if first, taken := names[c.Name]; taken {
			return all, fmt.Errorf("component %q is in %s and in %s: give one of them another name", c.Name, first, c.File)
		}
		names[c.Name] = c.File
	}
	return all, nil
}

func inScope(scopes []string, appID string) bool {
	return len(scopes) == 0 || slices.Contains(scopes, appID)
}

// parse reads the documents of one file.
func parse(content []byte, file string) (Resources, error) {
	var all Resources
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var whole yaml.Node
		var d document
		err := decoder.Decode(&whole)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err == nil && isEmpty(whole):
			continue
		case err == nil:
			err = whole.Decode(&d)
		}
		if err != nil {
			return all, fmt.Errorf("not YAML of a resource: %s", strings.Join(strings.Fields(err.Error()), " "))
		}
		switch d.Kind {
		case "":
			return all, fmt.Errorf("%q says no kind: write kind: Component or kind: Subscription, or take the file out of the folder", d.Metadata.Name)
		case "Component":
			c, err := d.component(file)
			if err != nil {
				return all, err
			}
			all.Components = append(all.Components, c)
		case "Subscription":
			s, err := d.subscription()
			if err != nil {
				return all, err
			}
			all.Subscriptions = append(all.Subscriptions, s)
		default:
			return all, fmt.Errorf("%s %q: resources of this kind mean nothing here; components and subscriptions do. Take the file out of the folder", d.Kind, d.Metadata.Name)
		}
	}
}

// isEmpty reports whether nothing stands in a document, or comments alone.
func isEmpty(whole yaml.Node) bool {
	return len(whole.Content) == 0 || len(whole.Content) == 1 && whole.Content[0].Tag == "!!null"
}

func (d document) component(file string) (Component, error) {
	var spec componentSpec
	if err := d.Spec.Decode(&spec); err != nil {
		return Component{}, fmt.Errorf("component %q: its spec is not one: %s", d.Metadata.Name, strings.Join(strings.Fields(err.Error()), " "))
	}
	switch {
	case d.Metadata.Name == "":
		return Component{}, errors.New("a component has no name: set metadata.name")
	case !slices.Contains(Kinds(), spec.Type):
		return Component{}, fmt.Errorf("component %q is of the type %q, for which there is no native driver; there are: %s", d.Metadata.Name, spec.Type, strings.Join(Kinds(), ", "))
	}
	c := Component{Name: d.Metadata.Name, Type: spec.Type, Version: spec.Version, Metadata: map[string]string{}, Scopes: d.Scopes, File: file}
	for _, m := range spec.Metadata {
		name := strings.ToLower(m.Name)
		switch {
		case m.EnvRef != "":
			value, set := os.LookupEnv(m.EnvRef)
			if !set {
				return Component{}, fmt.Errorf("component %q: %s is to come from the environment, where %s is not set", c.Name, m.Name, m.EnvRef)
			}
			c.Metadata[name] = value
		case m.SecretKeyRef.Name != "":
			value, set := os.LookupEnv(m.SecretKeyRef.Name)
			if !set {
				return Component{}, fmt.Errorf("component %q: %s refers to a secret, and no variable of the environment is called %s: set it, or write the value", c.Name, m.Name, m.SecretKeyRef.Name)
			}
			c.Metadata[name] = value
		case m.Value.Kind == yaml.ScalarNode:
			c.Metadata[name] = m.Value.Value
		case m.Value.Kind != 0:
			return Component{}, fmt.Errorf("component %q: the value of %s is to be a single one", c.Name, m.Name)
		}
	}
	if encryption := c.Metadata["primaryencryptionkey"]; encryption != "" {
		return Component{}, fmt.Errorf("component %q encrypts what it keeps (primaryEncryptionKey), which no native driver reads: keep this store on Dapr, or copy it without encryption", c.Name)
	}
	if c.Metadata["actorstatestore"] == "true" {
		return Component{}, fmt.Errorf("component %q keeps actors (actorStateStore), which there are none of here: use another store for the rest of the app's state", c.Name)
	}
	return c, nil
}

// subscription reads a declared one, of either version.
func (d document) subscription() (Subscription, error) {
	var spec struct {
		PubSubName      string            `yaml:"pubsubname"`
		Topic           string            `yaml:"topic"`
		Route           string            `yaml:"route"` // v1alpha1
		DeadLetterTopic string            `yaml:"deadLetterTopic"`
		Metadata        map[string]string `yaml:"metadata"`
		Routes          struct {          // v2alpha1
			Rules []struct {
				Match string `yaml:"match"`
				Path  string `yaml:"path"`
			} `yaml:"rules"`
			Default string `yaml:"default"`
		} `yaml:"routes"`
		BulkSubscribe struct {
			Enabled bool `yaml:"enabled"`
		} `yaml:"bulkSubscribe"`
	}
	if err := d.Spec.Decode(&spec); err != nil {
		return Subscription{}, fmt.Errorf("subscription %q: its spec is not one: %s", d.Metadata.Name, strings.Join(strings.Fields(err.Error()), " "))
	}
	s := Subscription{PubSub: spec.PubSubName, Topic: spec.Topic, DeadLetterTopic: spec.DeadLetterTopic, Metadata: spec.Metadata, Bulk: spec.BulkSubscribe.Enabled, scopes: d.Scopes}
	for _, r := range spec.Routes.Rules {
		s.Rules = append(s.Rules, Rule{Match: r.Match, Path: r.Path})
	}
	s.Default = spec.Route
	if s.Default == "" {
		s.Default = spec.Routes.Default
	}
	if s.PubSub == "" || s.Topic == "" {
		return Subscription{}, fmt.Errorf("subscription %q: it needs pubsubname and topic", d.Metadata.Name)
	}
	return s, nil
}
