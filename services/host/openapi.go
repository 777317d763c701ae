package host

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/bannou-mesh/bannou/services/problem"
)

// mergeDocuments makes one OpenAPI document of those of the services: their paths and components side by side.
// Components of the same name have to be the same.
func (h *Host) mergeDocuments() ([]byte, error) {
	paths, components := &yaml.Node{Kind: yaml.MappingNode}, &yaml.Node{Kind: yaml.MappingNode}
	if err := merge(paths, components, problem.OpenAPI()); err != nil {
		return nil, fmt.Errorf("host: openapi of problems: %w", err)
	}
	h.mu.Lock()
	services := h.services
	h.mu.Unlock()
	for _, s := range services {
		if err := merge(paths, components, s.OpenAPI()); err != nil {
			return nil, fmt.Errorf("host: openapi of service %q: %w", s.Name(), err)
		}
	}
	info := mapping("title", text("Bannou"), "version", text(h.cfg.Version))
	document := mapping("openapi", text("3.0.3"), "info", info, "paths", paths, "components", components)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(document); err != nil {
		return nil, fmt.Errorf("host: openapi: %w", err)
	}
	return out.Bytes(), nil
}

func merge(paths, components *yaml.Node, document []byte) error {
	if len(document) == 0 {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return err
	}
	if len(root.Content) == 0 {
		return nil
	}
	resolve(root.Content[0])
	if from := member(root.Content[0], "paths"); from != nil {
		if err := addAll(paths, from); err != nil {
			return err
		}
	}
	from := member(root.Content[0], "components")
	if from == nil {
		return nil
	}
	for i := 0; i+1 < len(from.Content); i += 2 {
		section := member(components, from.Content[i].Value)
		if section == nil {
			section = &yaml.Node{Kind: yaml.MappingNode}
			components.Content = append(components.Content, from.Content[i], section)
		}
		if err := addAll(section, from.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// resolve makes references to the problem document local, and drops what only the code generator reads.
func resolve(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		kept := n.Content[:0]
		for i := 0; i+1 < len(n.Content); i += 2 {
			if strings.HasPrefix(n.Content[i].Value, "x-go-") {
				continue
			}
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
		n.Content = kept
	}
	if n.Kind == yaml.ScalarNode {
		n.Value = strings.Replace(n.Value, "../problem/openapi.yaml#/", "#/", 1)
	}
	for _, child := range n.Content {
		resolve(child)
	}
}

// addAll adds the members of from to those of into. One that is there already has to be the same.
func addAll(into, from *yaml.Node) error {
	for i := 0; i+1 < len(from.Content); i += 2 {
		name, value := from.Content[i], from.Content[i+1]
		switch have := member(into, name.Value); {
		case have == nil:
			into.Content = append(into.Content, name, value)
		case !same(have, value):
			return fmt.Errorf("line %d: %q is defined differently elsewhere; give it another name", name.Line, name.Value)
		}
	}
	return nil
}

func same(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !same(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

func member(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// mapping makes a node of names and nodes in turn.
func mapping(members ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(members); i += 2 {
		name, _ := members[i].(string)
		value, _ := members[i+1].(*yaml.Node)
		n.Content = append(n.Content, text(name), value)
	}
	return n
}
