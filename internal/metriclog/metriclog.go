// Package metriclog keeps the metrics of a run in the artifact store, so that tracking never stops training and no
// point is ever logged twice with different time stamps.
//
// The log is a chain of small objects. A segment covers the steps [From, To) and is stored under the key of its From,
// with PutIfAbsent; the next segment begins where it ends. Whoever extends the chain second (a retry, or a zombie that
// was timed out but still runs) finds the key taken, adopts what is stored, and goes on behind it. Every writer of a
// run thus ends up with the same points, and pushing them to MLflow any number of times leaves each (key, step) once.
package metriclog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/train"
)

// maxSegment bounds one segment in bytes: a window of seconds is a few hundred points of about 100 bytes.
const maxSegment = 16 << 20

// Segment is one object of the chain.
type Segment struct {
	From   int64         `json:"from"` // first step covered
	To     int64         `json:"to"`   // first step not covered
	Points []train.Point `json:"points"`
}

// Log extends the chain below one prefix. It is not safe for concurrent use.
type Log struct {
	store  artifact.Store
	prefix string
	end    int64 // the chain is known to cover [0, end)
}

// Open positions a log at the segment that contains step, reading no more than it must.
func Open(ctx context.Context, store artifact.Store, prefix string, step int64) (*Log, error) {
	l := &Log{store: store, prefix: prefix}
	starts, err := l.starts(ctx)
	if err != nil {
		return nil, err
	}
	for _, from := range starts { // sorted; the last segment that begins at or before step holds it, or ends before it
		if from > step {
			break
		}
		l.end = from
	}
	if len(starts) == 0 || l.end == step {
		return l, nil
	}
	seg, err := l.read(ctx, l.end)
	if err != nil {
		return nil, err
	}
	if seg.To <= step {
		l.end = seg.To
	}
	return l, nil
}

// Append covers the steps up to (not including) to with the points given, and returns the points that the chain now
// holds for the part that this call covered: the ones given, or those that an earlier writer stored for the same steps.
func (l *Log) Append(ctx context.Context, to int64, points []train.Point) ([]train.Point, error) {
	var canonical []train.Point
	for l.end < to {
		seg := Segment{From: l.end, To: to, Points: since(points, l.end)}
		body, err := json.Marshal(seg)
		if err != nil {
			return canonical, fmt.Errorf("metric log: steps %d to %d: %w", l.end, to, err)
		}
		_, err = l.store.PutIfAbsent(ctx, l.key(l.end), body)
		if errors.Is(err, artifact.ErrExists) {
			seg, err = l.read(ctx, l.end)
		}
		if err != nil {
			return canonical, fmt.Errorf("metric log: steps %d to %d: %w", l.end, to, err)
		}
		canonical = append(canonical, seg.Points...)
		l.end = seg.To
	}
	return canonical, nil
}

// All reads the whole chain, in step order.
func All(ctx context.Context, store artifact.Store, prefix string) ([]train.Point, error) {
	l := &Log{store: store, prefix: prefix}
	var points []train.Point
	for {
		seg, err := l.read(ctx, l.end)
		if errors.Is(err, artifact.ErrNotFound) {
			return points, nil
		}
		if err != nil {
			return nil, err
		}
		points = append(points, seg.Points...)
		l.end = seg.To
	}
}

// Once stores points that belong to one event (an evaluation, the end of training) under name, or returns those that
// were stored for it before.
func Once(ctx context.Context, store artifact.Store, prefix, name string, points []train.Point) ([]train.Point, error) {
	body, err := json.Marshal(points)
	if err != nil {
		return nil, fmt.Errorf("metric log: %s: %w", name, err)
	}
	key := prefix + "/once/" + name + ".json"
	_, err = store.PutIfAbsent(ctx, key, body)
	if err == nil {
		return points, nil
	}
	if !errors.Is(err, artifact.ErrExists) {
		return nil, fmt.Errorf("metric log: %s: %w", name, err)
	}
	return readPoints(ctx, store, key)
}

// Events reads what [Once] stored, in name order.
func Events(ctx context.Context, store artifact.Store, prefix string) ([]train.Point, error) {
	var points []train.Point
	for info, err := range store.List(ctx, prefix+"/once") {
		if err != nil {
			return nil, fmt.Errorf("metric log: %w", err)
		}
		p, err := readPoints(ctx, store, info.Key)
		if err != nil {
			return nil, err
		}
		points = append(points, p...)
	}
	return points, nil
}

func readPoints(ctx context.Context, store artifact.Store, key string) ([]train.Point, error) {
	body, _, err := store.Get(ctx, key, maxSegment)
	if err != nil {
		return nil, fmt.Errorf("metric log: %w", err)
	}
	var points []train.Point
	if err := json.Unmarshal(body, &points); err != nil {
		return nil, fmt.Errorf("metric log: %s: %w", key, err)
	}
	return points, nil
}

// starts lists the first steps of all segments, ascending.
func (l *Log) starts(ctx context.Context) ([]int64, error) {
	var starts []int64
	for info, err := range l.store.List(ctx, l.prefix+"/steps") {
		if err != nil {
			return nil, fmt.Errorf("metric log: %w", err)
		}
		name := info.Key[strings.LastIndex(info.Key, "/")+1:]
		var from int64
		if _, err := fmt.Sscanf(name, "%d.json", &from); err != nil {
			return nil, fmt.Errorf("metric log: unexpected object %s", info.Key)
		}
		starts = append(starts, from)
	}
	return starts, nil
}

func (l *Log) read(ctx context.Context, from int64) (Segment, error) {
	var seg Segment
	body, _, err := l.store.Get(ctx, l.key(from), maxSegment)
	if err != nil {
		return seg, fmt.Errorf("metric log: %w", err)
	}
	if err := json.Unmarshal(body, &seg); err != nil {
		return seg, fmt.Errorf("metric log: %s: %w", l.key(from), err)
	}
	if seg.From != from || seg.To <= from {
		return seg, fmt.Errorf("metric log: %s covers steps %d to %d", l.key(from), seg.From, seg.To)
	}
	return seg, nil
}

func (l *Log) key(from int64) string { return fmt.Sprintf("%s/steps/%012d.json", l.prefix, from) }

// since drops the points of steps before from. A point at step s describes the steps up to s, so it belongs to the
// segment that covers s-1.
func since(points []train.Point, from int64) []train.Point {
	for i, p := range points {
		if p.Step > from {
			return points[i:]
		}
	}
	return nil
}
