package hub

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// defaultConfig is what the hub calls the configuration of a data set that has only one.
const defaultConfig = "default"

// card is the part of a data set's README.md that says where its rows are and what its columns mean: the YAML between
// two lines of ---.
type card struct {
	Configs []cardConfig
	info    []cardInfo
}

// cardConfig is one configuration. Without Splits the files are found by their names below DataDir.
type cardConfig struct {
	Name    string
	Default bool
	DataDir string
	Splits  []cardSplit
}

// cardSplit gives the globs of a split's files.
type cardSplit struct {
	Name  string
	Globs []string
}

// cardInfo gives the class names of a configuration's label columns.
type cardInfo struct {
	config  string
	columns map[string][]string
}

// parseCard reads the front matter; a text without one is an empty card.
func parseCard(text []byte) (card, error) {
	text = bytes.ReplaceAll(bytes.TrimPrefix(text, []byte("\ufeff")), []byte("\r\n"), []byte("\n"))
	rest, ok := bytes.CutPrefix(text, []byte("---\n"))
	if !ok {
		return card{}, nil
	}
	front, _, ok := bytes.Cut(rest, []byte("\n---"))
	if !ok {
		return card{}, nil
	}
	var raw struct {
		Configs     []rawConfig `yaml:"configs"`
		DatasetInfo yaml.Node   `yaml:"dataset_info"`
	}
	if err := yaml.Unmarshal(front, &raw); err != nil {
		return card{}, fmt.Errorf("front matter: %w", err)
	}
	var out card
	for _, c := range raw.Configs {
		parsed, err := c.parse()
		if err != nil {
			return card{}, fmt.Errorf("configs: %s: %w", c.Name, err)
		}
		out.Configs = append(out.Configs, parsed)
	}
	info, err := parseInfo(raw.DatasetInfo)
	out.info = info
	return out, err
}

// rawConfig is a configuration as written; data_files has several shapes.
type rawConfig struct {
	Name      string    `yaml:"config_name"`
	Default   bool      `yaml:"default"`
	DataDir   string    `yaml:"data_dir"`
	DataFiles yaml.Node `yaml:"data_files"`
}

func (c rawConfig) parse() (cardConfig, error) {
	out := cardConfig{Name: c.Name, Default: c.Default, DataDir: c.DataDir}
	if out.Name == "" {
		out.Name = defaultConfig
	}
	switch c.DataFiles.Kind {
	case 0:
	case yaml.ScalarNode: // one glob
		out.Splits = []cardSplit{{defaultSplit, []string{c.DataFiles.Value}}}
	case yaml.SequenceNode: // globs, or {split, path}
		for _, n := range c.DataFiles.Content {
			if n.Kind == yaml.ScalarNode {
				out.Splits = append(out.Splits, cardSplit{defaultSplit, []string{n.Value}})
				continue
			}
			var entry struct {
				Split string    `yaml:"split"`
				Path  yaml.Node `yaml:"path"`
			}
			if err := n.Decode(&entry); err != nil {
				return out, err
			}
			globs, err := scalars(entry.Path)
			if err != nil {
				return out, err
			}
			out.Splits = append(out.Splits, cardSplit{entry.Split, globs})
		}
	case yaml.MappingNode: // split: globs
		var entries map[string]yaml.Node
		if err := c.DataFiles.Decode(&entries); err != nil {
			return out, err
		}
		for _, split := range slices.Sorted(maps.Keys(entries)) {
			globs, err := scalars(entries[split])
			if err != nil {
				return out, err
			}
			out.Splits = append(out.Splits, cardSplit{split, globs})
		}
	default:
		return out, errors.New("data_files has an unknown shape")
	}
	for _, s := range out.Splits {
		for i, g := range s.Globs {
			s.Globs[i] = path.Join(c.DataDir, g)
		}
	}
	return out, nil
}

// scalars reads a string or a list of strings.
func scalars(n yaml.Node) ([]string, error) {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}, nil
	}
	var list []string
	err := n.Decode(&list)
	return list, err
}

// parseInfo reads dataset_info: one mapping, or a list of them with their config_name.
func parseInfo(n yaml.Node) ([]cardInfo, error) {
	type rawInfo struct {
		Config   string `yaml:"config_name"`
		Features []struct {
			Name  string    `yaml:"name"`
			DType yaml.Node `yaml:"dtype"` // a name, or {class_label: {names: {'0': ham}}}
		} `yaml:"features"`
	}
	var raws []rawInfo
	switch n.Kind {
	case 0:
		return nil, nil
	case yaml.MappingNode:
		raws = make([]rawInfo, 1)
		if err := n.Decode(&raws[0]); err != nil {
			return nil, fmt.Errorf("dataset_info: %w", err)
		}
	default:
		if err := n.Decode(&raws); err != nil {
			return nil, fmt.Errorf("dataset_info: %w", err)
		}
	}
	var out []cardInfo
	for _, raw := range raws {
		info := cardInfo{config: raw.Config, columns: map[string][]string{}}
		for _, f := range raw.Features {
			var dtype struct {
				ClassLabel struct {
					Names yaml.Node `yaml:"names"`
				} `yaml:"class_label"`
			}
			if f.DType.Kind != yaml.MappingNode || f.DType.Decode(&dtype) != nil || dtype.ClassLabel.Names.Kind == 0 {
				continue // a plain or a nested type
			}
			names, err := classNames(dtype.ClassLabel.Names)
			if err != nil {
				return nil, fmt.Errorf("dataset_info: %s: %w", f.Name, err)
			}
			info.columns[f.Name] = names
		}
		out = append(out, info)
	}
	return out, nil
}

// classNames reads {'0': ham, '1': spam} or [ham, spam].
func classNames(n yaml.Node) ([]string, error) {
	if n.Kind == yaml.SequenceNode {
		return scalars(n)
	}
	var byIndex map[string]string
	if err := n.Decode(&byIndex); err != nil {
		return nil, err
	}
	names := make([]string, len(byIndex))
	seen := make([]bool, len(byIndex))
	for k, name := range byIndex {
		i, err := strconv.Atoi(k)
		if err != nil || i < 0 || i >= len(names) || seen[i] {
			return nil, fmt.Errorf("class indices are not 0 to %d", len(byIndex)-1)
		}
		names[i], seen[i] = name, true
	}
	return names, nil
}

// config returns the configuration called name, or the default one.
func (c card) config(name string) (cardConfig, error) {
	var names []string
	for _, cfg := range c.Configs {
		names = append(names, cfg.Name)
		if name == "" && cfg.Default {
			name = cfg.Name
		}
	}
	name, err := pickOne("configuration", name, defaultConfig, names)
	if err != nil {
		return cardConfig{}, err
	}
	return c.Configs[slices.Index(names, name)], nil
}

// classNames returns the class names of a configuration's columns, nil if the card has none.
func (c card) classNames(config string) map[string][]string {
	for _, info := range c.info {
		if info.config == config || len(c.info) == 1 && info.config == "" {
			return info.columns
		}
	}
	return nil
}

func (c cardConfig) splitNames() []string {
	var names []string
	for _, s := range c.Splits {
		names = append(names, s.Name)
	}
	return names
}

// matches reports whether a path is of the split.
func (c cardConfig) matches(split, p string) bool {
	for _, s := range c.Splits {
		if s.Name == split && slices.ContainsFunc(s.Globs, func(g string) bool { return globMatch(g, p) }) {
			return true
		}
	}
	return false
}

// pickOne returns wanted if it is among names; if nothing is wanted, the usual one or the only one.
func pickOne(what, wanted, usual string, names []string) (string, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	switch {
	case wanted != "" && slices.Contains(names, wanted):
		return wanted, nil
	case wanted == "" && slices.Contains(names, usual):
		return usual, nil
	case wanted == "" && len(names) == 1:
		return names[0], nil
	case wanted == "":
		return "", fmt.Errorf("there are several %ss (%s); say which with ?%s=", what, strings.Join(names, ", "), queryKey(what))
	}
	return "", fmt.Errorf("no %s %q; there is %s", what, wanted, strings.Join(names, ", "))
}

// queryKey is the URI's key for what pickOne picks.
func queryKey(what string) string {
	if what == "split" {
		return what
	}
	return "config"
}

// globMatch matches a path with *, ?, [classes] and ** (any number of folders).
func globMatch(glob, p string) bool {
	re, err := regexp.Compile(globRE(glob))
	return err == nil && re.MatchString(p)
}

// globRE translates a glob into a regular expression.
func globRE(glob string) string {
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(glob); i++ {
		rest := glob[i:]
		switch {
		case strings.HasPrefix(rest, "**/"):
			b.WriteString("(.*/)?")
			i += 2
		case strings.HasPrefix(rest, "**"):
			b.WriteString(".*")
			i++
		case rest[0] == '*':
			b.WriteString("[^/]*")
		case rest[0] == '?':
			b.WriteString("[^/]")
		case rest[0] == '[' && strings.Contains(rest, "]"):
			end := strings.Index(rest, "]")
			b.WriteString("[" + strings.ReplaceAll(strings.Replace(rest[1:end], "!", "^", 1), `\`, `\\`) + "]")
			i += end
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
		}
	}
	b.WriteString("$")
	return b.String()
}
