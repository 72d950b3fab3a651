// Compares two documents: their hashes, and what to take out of the one and put in
// to get the other.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxLines bounds the table of the comparison, which has as many cells as both
// documents' lines multiplied.
const MaxLines = 2000

type request struct {
	Old *string `json:"old"`
	New *string `json:"new"`
}

type document struct {
	SHA256 string `json:"sha256"`
	Lines  int    `json:"lines"`
}

type answer struct {
	Same    bool     `json:"same"`
	Old     document `json:"old"`
	New     document `json:"new"`
	Added   int      `json:"added"`
	Removed int      `json:"removed"`
	Diff    []string `json:"diff"`
}

// Handler takes {"old": "…", "new": "…"}.
func Handler(ctx context.Context, payload json.RawMessage) (any, error) {
	var asked request
	if err := json.Unmarshal(payload, &asked); err != nil {
		return nil, fmt.Errorf("the payload cannot be read: %w", err)
	}
	if asked.Old == nil || asked.New == nil {
		return nil, errors.New(`the payload needs "old" and "new", two documents as text`)
	}
	before, after := strings.Split(*asked.Old, "\n"), strings.Split(*asked.New, "\n")
	if len(before) > MaxLines || len(after) > MaxLines {
		return nil, fmt.Errorf("a document may have %d lines", MaxLines)
	}
	found := answer{
		Same: *asked.Old == *asked.New,
		Old:  document{hash(*asked.Old), len(before)},
		New:  document{hash(*asked.New), len(after)},
		Diff: diff(before, after),
	}
	for _, line := range found.Diff {
		if line[0] == '+' {
			found.Added++
		} else {
			found.Removed++
		}
	}
	fmt.Printf("%d lines added, %d removed\n", found.Added, found.Removed)
	return found, nil
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// diff keeps the longest common subsequence of both and names all other lines.
func diff(before, after []string) []string {
	common := make([][]int, len(before)+1)
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	lines := []string{}
	for i, j := 0, 0; i < len(before) || j < len(after); {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			i, j = i+1, j+1
		case i < len(before) && (j == len(after) || common[i+1][j] >= common[i][j+1]):
			lines = append(lines, "-"+before[i])
			i++
		default:
			lines = append(lines, "+"+after[j])
			j++
		}
	}
	return lines
}
