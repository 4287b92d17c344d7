package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/duratune/duratune/infra/stack"
)

// Workflow types of a recipe.
const (
	fineTuneType = "FineTune"
	validateType = "Validate"
)

func (a *app) runVerb(ctx context.Context, args []string) error {
	id := ""
	rest, err := flags("run", args, func(fs *flag.FlagSet) {
		fs.StringVar(&id, "id", "", "workflow id (default finetune/<recipe's name>/<time>)")
	})
	if err != nil {
		return err
	}
	f, err := a.begin(ctx, fineTuneType, id, rest)
	if err != nil {
		return err
	}
	defer f.client.Close()
	return f.toTheEnd(ctx)
}

func (a *app) followVerb(ctx context.Context, args []string) error {
	rest, err := flags("follow", args, nil)
	if err != nil {
		return err
	}
	if len(rest) != 1 {
		return errors.New("local follow: want one workflow id")
	}
	if _, err := stack.ReadStatus(a.state); err != nil {
		return err
	}
	f, err := a.follower(rest[0])
	if err != nil {
		return err
	}
	defer f.client.Close()
	return f.toTheEnd(ctx)
}

// validateVerb prints the frozen recipe, or all its problems.
func (a *app) validateVerb(ctx context.Context, args []string) error {
	rest, err := flags("validate", args, nil)
	if err != nil {
		return err
	}
	f, err := a.begin(ctx, validateType, "", rest)
	if err != nil {
		return err
	}
	defer f.client.Close()
	if err := f.wait(ctx); err != nil {
		return err
	}
	var frozen json.RawMessage
	if err := f.result(ctx, &frozen); err != nil {
		printFailure(f.out, err)
		return errQuiet
	}
	fmt.Fprintf(f.out, "the recipe is valid; with every default it is\n%s\n", pretty(frozen))
	return nil
}

// begin brings the stack up and starts a workflow on the recipe that args name.
func (a *app) begin(ctx context.Context, kind, id string, args []string) (*follower, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("local: want one recipe, got %q", args)
	}
	recipe := args[0]
	if _, err := os.Stat(recipe); err != nil { // before minutes of set-up
		return nil, fmt.Errorf("local: recipe: %w", err)
	}
	if id == "" {
		id = workflowID(kind, recipe, time.Now())
	}
	paths, err := a.up(ctx, true)
	if err != nil {
		return nil, err
	}
	f, err := a.follower(id)
	if err != nil {
		return nil, err
	}
	if err := startWorkflow(ctx, f, paths.Temporal, kind, recipe); err != nil {
		f.client.Close()
		return nil, err
	}
	return f, nil
}

// startWorkflow prints and runs the command that anybody could type.
func startWorkflow(ctx context.Context, f *follower, temporal, kind, recipe string) error {
	cmd := exec.CommandContext(ctx, temporal, "workflow", "start", "--address", f.instance.TemporalAddress(),
		"--type", kind, "--task-queue", stack.Queue, "--workflow-id", f.id, "--input-file", recipe)
	fmt.Fprintf(f.out, "\n%s\n", strings.Join(cmd.Args, " "))
	cmd.Env = append(os.Environ(), f.instance.ClientEnv()...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("local: start the workflow: %w", err)
	}
	fmt.Fprintln(f.out)
	return nil
}

// follower follows a workflow of the running stack on the terminal.
func (a *app) follower(id string) (*follower, error) {
	in, err := stack.Load(a.state)
	if err != nil {
		return nil, err
	}
	c, err := in.Dial()
	if err != nil {
		return nil, err
	}
	info, err := os.Stdout.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &follower{client: c, instance: in, id: id, out: os.Stdout, screen: newScreen(os.Stdout, terminal)}, nil
}

// workflowID makes an id that tells the recipe and the time. The recipe's name is read without judging the rest of it.
func workflowID(kind, recipe string, now time.Time) string {
	var named struct {
		Name string `json:"name"`
	}
	if data, err := os.ReadFile(recipe); err == nil {
		_ = json.Unmarshal(data, &named) // a broken recipe is Plan's business
	}
	if named.Name == "" {
		named.Name = strings.TrimSuffix(filepath.Base(recipe), filepath.Ext(recipe))
	}
	return fmt.Sprintf("%s/%s/%s", strings.ToLower(kind), named.Name, now.Format("20060102-150405"))
}
