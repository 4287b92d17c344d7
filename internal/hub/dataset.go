package hub

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	cardFile     = "README.md"
	maxCard      = 8 << 20
	parquetRef   = "refs/convert/parquet" // where the hub keeps a data set that it has converted
	parquetExt   = ".parquet"
	defaultSplit = "train"
)

// Dataset brings the Parquet files of one split of a data set into the cache and returns them in the order of their
// rows, the class names of the column labelColumn in index order (nil if the data set does not state them), and the
// commit they are of.
//
// The URI may say which configuration and split are meant; the defaults are the card's default configuration (or the
// only one) and train (or the only split). Files come from the revision itself or, where main holds no Parquet, from
// the branch with the hub's own conversion; the commit is then of that branch. It works as a revision too, but knows no
// default configuration, since the card is not on that branch.
func (c *Client) Dataset(ctx context.Context, uri, revision, labelColumn string, progress ProgressFunc) (files, labels []string, commit string, err error) {
	snap, u, err := c.open(ctx, TypeDataset, uri, revision)
	if err != nil {
		return nil, nil, "", err
	}
	card, err := c.card(ctx, snap)
	if err != nil {
		return nil, nil, "", err
	}
	chosen, err := snap.choose(card, u)
	if errors.Is(err, errNoParquet) && u.Revision == DefaultRevision {
		chosen, snap, err = c.converted(ctx, snap, card, u)
	}
	if err != nil {
		return nil, nil, "", err
	}
	dir := filepath.Join(c.repoDir(TypeDataset, snap.Name), snap.Commit)
	if err := c.Download(ctx, snap, chosen.files, dir, progress); err != nil {
		return nil, nil, "", err
	}
	for _, f := range chosen.files {
		files = append(files, filepath.Join(dir, filepath.FromSlash(f.Path)))
	}
	names := card.classNames(chosen.config)
	if len(names) == 0 {
		if names, err = parquetClassNames(files[0]); err != nil {
			return nil, nil, "", (&Error{Op: "read", Repo: snap.Name, Revision: snap.Commit, File: chosen.files[0].Path}).with(ErrUnsupported, err.Error())
		}
	}
	return files, names[labelColumn], snap.Commit, nil
}

// card reads the data set's card; without one it is empty.
func (c *Client) card(ctx context.Context, snap *Snapshot) (card, error) {
	f, ok := snap.Find(cardFile)
	if !ok || f.Size > maxCard {
		return card{}, nil
	}
	blob, err := c.fetch(ctx, snap, f, func(int64) {})
	if err != nil {
		return card{}, err
	}
	text, err := os.ReadFile(blob)
	if err != nil {
		return card{}, err
	}
	parsed, err := parseCard(text)
	if err != nil {
		at := Error{Op: "read", Repo: snap.Name, Revision: snap.Commit, File: cardFile}
		return card{}, at.with(ErrUnsupported, err.Error())
	}
	return parsed, nil
}

// errNoParquet says that a revision holds no Parquet for what is asked. It never leaves the package alone.
var errNoParquet = errors.New("no Parquet files")

// choice is one split of one configuration.
type choice struct {
	config string
	files  []File
}

// choose picks the Parquet files that the card or, without it, the paths assign to the wanted split.
func (s *Snapshot) choose(card card, u URI) (choice, error) {
	at := Error{Op: "choose the files of", Repo: s.Name, Revision: s.Commit}
	if len(card.Configs) == 0 {
		return s.chooseByPath(at, u, "")
	}
	cfg, err := card.config(u.Config)
	if err != nil {
		return choice{}, at.with(ErrNotFound, err.Error())
	}
	if len(cfg.Splits) == 0 { // files by their names, below the configuration's folder
		ch, err := s.chooseByPath(at, URI{Split: u.Split}, strings.Trim(cfg.DataDir, "./"))
		ch.config = cfg.Name
		return ch, err
	}
	split, err := pickOne("split", u.Split, defaultSplit, cfg.splitNames())
	if err != nil {
		return choice{}, at.with(ErrNotFound, err.Error())
	}
	chosen := choice{config: cfg.Name}
	for _, f := range s.Files {
		if f.Path != cardFile && cfg.matches(split, f.Path) {
			chosen.files = append(chosen.files, f)
		}
	}
	return chosen.checked(at)
}

// checked sorts the files and sees that all of them are Parquet.
func (ch choice) checked(at Error) (choice, error) {
	parquet := func(f File) bool { return path.Ext(f.Path) == parquetExt }
	if len(ch.files) == 0 || !slices.ContainsFunc(ch.files, parquet) {
		return choice{}, errors.Join(at.with(ErrUnsupported, "the revision holds no Parquet files for it"), errNoParquet)
	}
	for _, f := range ch.files {
		if !parquet(f) {
			return choice{}, at.with(ErrUnsupported, "its files are not all Parquet: "+f.Path)
		}
		if strings.Contains(f.Path, "/partial-") {
			return choice{}, at.with(ErrUnsupported, "the hub has converted only a part of it: "+f.Path)
		}
	}
	slices.SortFunc(ch.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return ch, nil
}

// chooseByPath goes by folder and file names below dir, as the hub's Python client does.
func (s *Snapshot) chooseByPath(at Error, u URI, dir string) (choice, error) {
	type key struct{ config, split string }
	groups := map[key][]File{}
	for _, f := range s.Files {
		rest, below := f.Path, true
		if dir != "" {
			rest, below = strings.CutPrefix(f.Path, dir+"/")
		}
		if below && path.Ext(f.Path) == parquetExt {
			config, split := configAndSplit(rest)
			groups[key{config, split}] = append(groups[key{config, split}], f)
		}
	}
	if len(groups) == 0 {
		return choice{}, errors.Join(at.with(ErrUnsupported, "the revision holds no Parquet files"), errNoParquet)
	}
	var configs, splits []string
	for k := range groups {
		configs = append(configs, k.config)
	}
	config, err := pickOne("configuration", u.Config, defaultConfig, configs)
	if err != nil {
		return choice{}, at.with(ErrNotFound, err.Error())
	}
	for k := range groups {
		if k.config == config {
			splits = append(splits, k.split)
		}
	}
	split, err := pickOne("split", u.Split, defaultSplit, splits)
	if err != nil {
		return choice{}, at.with(ErrNotFound, err.Error())
	}
	return choice{config: config, files: groups[key{config, split}]}.checked(at)
}

var (
	convertedRE = regexp.MustCompile(`^([^/]+)/([^/]+)/\d{4}\.parquet$`) // layout of parquetRef
	splitRE     = map[string]*regexp.Regexp{
		"train":      regexp.MustCompile(`(^|[-._ 0-9])(train|training)([-._ 0-9]|$)`),
		"validation": regexp.MustCompile(`(^|[-._ 0-9])(validation|valid|dev|val)([-._ 0-9]|$)`),
		"test":       regexp.MustCompile(`(^|[-._ 0-9])(test|testing|eval|evaluation)([-._ 0-9]|$)`),
	}
)

// configAndSplit reads a path's configuration and split. A folder called data is no configuration, and a file that names
// no split is of train.
func configAndSplit(p string) (config, split string) {
	if m := convertedRE.FindStringSubmatch(p); m != nil {
		return m[1], strings.TrimPrefix(m[2], "partial-")
	}
	segments := strings.Split(p, "/")
	config, split = defaultConfig, defaultSplit
	for i, segment := range segments {
		name, re := splitOf(segment)
		if name == "" {
			continue
		}
		split = name
		if i > 0 && i == len(segments)-1 && re != "" { // <config>/train-00000-of-00001.parquet
			config = segments[0]
		}
		break
	}
	if config == "data" {
		config = defaultConfig
	}
	return config, split
}

// splitOf returns the split that a path segment names and the pattern that found it.
func splitOf(segment string) (split, pattern string) {
	for name, re := range splitRE {
		if re.MatchString(segment) {
			return name, re.String()
		}
	}
	return "", ""
}

// converted looks for the data set on the branch with the hub's conversion.
func (c *Client) converted(ctx context.Context, main *Snapshot, card card, u URI) (choice, *Snapshot, error) {
	at := Error{Op: "choose the files of", Repo: main.Name, Revision: main.Commit}
	snap, err := c.Resolve(ctx, TypeDataset, main.Name, parquetRef)
	if errors.Is(err, ErrNotFound) {
		return choice{}, nil, at.with(ErrUnsupported, "it holds no Parquet files, and the hub has not converted it ("+parquetRef+" does not exist)")
	}
	if err != nil {
		return choice{}, nil, err
	}
	if u.Config == "" && len(card.Configs) > 0 {
		cfg, err := card.config("")
		if err != nil {
			return choice{}, nil, at.with(ErrNotFound, err.Error())
		}
		u.Config = cfg.Name
	}
	at.Revision = snap.Commit
	chosen, err := snap.chooseByPath(at, u, "")
	return chosen, snap, err
}
