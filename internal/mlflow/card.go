package mlflow

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
)

// Card is a model card: what a reader must know before using the model. Empty parts are left out.
type Card struct {
	Name        string
	Task        string // a sentence
	BaseModel   string // e.g. distilbert/distilbert-base-uncased
	BaseLicense string // SPDX name; "" is said to be unknown
	Data        []CardData
	DataLicense string
	Settings    []Fact        // in the order given
	Results     []Fact        // of the test rows, in the order given
	Classes     []ClassResult // of the test rows
	Limits      []string      // what it is not for, a sentence each
	Trace       []Fact        // run, workflow, versions, device
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// CardData is a share of the data set.
type CardData struct {
	Share  string // training, test, …
	Source string
	Digest string
	Rows   int
	Labels []Fact // rows a label
}

// ClassResult is how one class fared.
type ClassResult struct {
	Label                 string
	Precision, Recall, F1 float64
	Rows                  int
}

// Markdown writes the card. Values are escaped: none can break a table or open a link.
func (c Card) Markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n", Escape(c.Name))
	if c.Task != "" {
		fmt.Fprintf(&b, "\n%s\n", Escape(c.Task))
	}
	fmt.Fprintf(&b, "\n## Origin\n\nFine-tuned from %s (licence: %s).\n", Code(cmp.Or(c.BaseModel, "an unnamed model")), Escape(cmp.Or(c.BaseLicense, "unknown")))
	if len(c.Data) > 0 {
		fmt.Fprintf(&b, "\n## Data\n\nLicence: %s.\n\n| share | source | rows | labels | digest |\n|---|---|---:|---|---|\n", Escape(cmp.Or(c.DataLicense, "unknown")))
		for _, d := range c.Data {
			labels := make([]string, len(d.Labels))
			for i, l := range d.Labels {
				labels[i] = Escape(l.Name) + " " + Escape(l.Value)
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %s | %s |\n", Escape(d.Share), Code(d.Source), d.Rows, strings.Join(labels, ", "), Code(d.Digest))
		}
	}
	facts(&b, "Results on the test rows", "metric", c.Results)
	if len(c.Classes) > 0 {
		b.WriteString("\n| class | precision | recall | F1 | rows |\n|---|---:|---:|---:|---:|\n")
		for _, r := range c.Classes {
			fmt.Fprintf(&b, "| %s | %.4f | %.4f | %.4f | %d |\n", Escape(r.Label), r.Precision, r.Recall, r.F1, r.Rows)
		}
	}
	if len(c.Limits) > 0 {
		b.WriteString("\n## Limits\n\n")
		for _, l := range c.Limits {
			fmt.Fprintf(&b, "- %s\n", Escape(l))
		}
	}
	facts(&b, "Settings", "setting", c.Settings)
	facts(&b, "Trace", "what", c.Trace)
	return b.Bytes()
}

// facts writes a table of two columns.
func facts(b *bytes.Buffer, title, name string, list []Fact) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| %s | value |\n|---|---|\n", title, name)
	for _, f := range list {
		fmt.Fprintf(b, "| %s | %s |\n", Escape(f.Name), Escape(f.Value))
	}
}

// escaper takes their meaning from Markdown's and HTML's characters.
var escaper = strings.NewReplacer(
	`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "#", `\#`, "\n", " ", "\t", " ")

// Escape makes text of any origin stand as it is in Markdown, also in a table.
func Escape(s string) string { return escaper.Replace(CleanText(s, maxCell)) }

// Code writes text of any origin as code in Markdown; nothing for none.
func Code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("`", "'", "|", `\|`, "\n", " ").Replace(CleanText(s, maxCell)) + "`"
}
