"""Writes items.jsonl: questions of templates, each filled with what the graph holds.

Run it after a change of the graph or of a template: python make_items.py
"""

import json
import random
from pathlib import Path

from epigone.evaluation.cypher import Graph, NoRows

HERE = Path(__file__).resolve().parent
EACH = 5
AUTHOR = "MATCH (a:Author) RETURN a.name"
BOOK = "MATCH (b:Book) RETURN b.title"
CITY = "MATCH (c:City) RETURN c.name"
REGION = "MATCH (c:City) RETURN DISTINCT c.region"
GENRE = "MATCH (g:Genre) RETURN g.name"
PRIZE = "MATCH (p:Prize) RETURN p.name"
PUBLISHER = "MATCH (p:Publisher) RETURN p.name"
DECADE = "UNWIND [1960, 1970, 1980, 1990, 2000, 2010] AS year RETURN year"
PAGES = "UNWIND [150, 200, 250, 550, 600, 650] AS pages RETURN pages"

# A question, its query, and what fills the places of both. Everything that is sorted to take the
# first of it has no two equal values.
TEMPLATES = (
    ("In what year was {0} born?", 'MATCH (a:Author {{name: "{0}"}}) RETURN a.born', AUTHOR),
    ("Which books has {0} written?",
     'MATCH (:Author {{name: "{0}"}})-[:WROTE]->(b:Book) RETURN b.title', AUTHOR),
    ("Who published {0}?",
     'MATCH (p:Publisher)-[:PUBLISHED]->(:Book {{title: "{0}"}}) RETURN p.name', BOOK),
    ("In which city was the author of {0} born?",
     'MATCH (:Book {{title: "{0}"}})<-[:WROTE]-(:Author)-[:BORN_IN]->(c:City) '
     "RETURN DISTINCT c.name", BOOK),
    ("List the titles and years of all {0} books.",
     'MATCH (b:Book)-[:IN_GENRE]->(:Genre {{name: "{0}"}}) RETURN b.title, b.year', GENRE),
    ("How many authors come from {0}?",
     'MATCH (a:Author)-[:BORN_IN]->(:City {{name: "{0}"}}) RETURN count(a)', CITY),
    ("Which books have won the {0}, and when?",
     'MATCH (b:Book)-[w:WON]->(:Prize {{name: "{0}"}}) RETURN b.title, w.year', PRIZE),
    ("Which authors from the {0} region wrote {1} books?",
     'MATCH (:City {{region: "{0}"}})<-[:BORN_IN]-(a:Author)-[:WROTE]->(:Book)'
     '-[:IN_GENRE]->(:Genre {{name: "{1}"}}) RETURN DISTINCT a.name', REGION, GENRE),
    ("How many books did {0} publish from {1} on?",
     'MATCH (:Publisher {{name: "{0}"}})-[:PUBLISHED]->(b:Book) WHERE b.year >= {1} '
     "RETURN count(b)", PUBLISHER, DECADE),
    ("What is the longest book that {0} has published?",
     'MATCH (:Publisher {{name: "{0}"}})-[:PUBLISHED]->(b:Book) '
     "RETURN b.title ORDER BY b.pages DESC LIMIT 1", PUBLISHER),
    ("Which authors did {0} influence?",
     'MATCH (:Author {{name: "{0}"}})-[:INFLUENCED]->(a:Author) RETURN a.name', AUTHOR),
    ("How many pages has the shortest {0} book?",
     'MATCH (b:Book)-[:IN_GENRE]->(:Genre {{name: "{0}"}}) RETURN min(b.pages)', GENRE),
    ("Which {0} books have more than {1} pages?",
     'MATCH (b:Book)-[:IN_GENRE]->(:Genre {{name: "{0}"}}) WHERE b.pages > {1} RETURN b.title',
     GENRE, PAGES),
    ("Which authors have had a book published by {0} that won a prize?",
     'MATCH (:Publisher {{name: "{0}"}})-[:PUBLISHED]->(b:Book)<-[:WROTE]-(a:Author) '
     "WHERE EXISTS {{ MATCH (b)-[:WON]->(:Prize) }} RETURN DISTINCT a.name", PUBLISHER),
    ("How many books has each author who was born in {0} written?",
     'MATCH (:City {{name: "{0}"}})<-[:BORN_IN]-(a:Author)-[:WROTE]->(b:Book) '
     "RETURN a.name, count(b)", CITY),
    ("Which {0} books came out between {1} and 2010?",
     'MATCH (b:Book)-[:IN_GENRE]->(:Genre {{name: "{0}"}}) '
     "WHERE b.year >= {1} AND b.year <= 2010 RETURN b.title", GENRE, DECADE),
    ("Who wrote books that were published by {0} but have never won anything?",
     'MATCH (:Publisher {{name: "{0}"}})-[:PUBLISHED]->(b:Book)<-[:WROTE]-(a:Author) '
     "WHERE NOT EXISTS {{ MATCH (b)-[:WON]->(:Prize) }} RETURN DISTINCT a.name", PUBLISHER),
)  # fmt: skip


def items(graph: Graph) -> list[dict[str, str]]:
    """EACH items of a template, or as many as have an answer."""
    draw = random.Random(0)
    found = []
    for question, query, *slots in TEMPLATES:
        filled: list[tuple[object, ...]] = [()]
        for slot in slots:
            filled = [(*before, row[0]) for before in filled for row in sorted(graph.rows(slot))]
        draw.shuffle(filled)
        new = [
            {"question": question.format(*values), "query": query.format(*values)}
            for values in filled
        ]
        found += [item for item in new if _answered(graph, item["query"])][:EACH]
    return found


def _answered(graph: Graph, query: str) -> bool:
    try:
        # A count of nothing, or the answer that there is none, tells no right query from a wrong.
        return graph.rows(query) not in ([[0]], [[None]])
    except NoRows:
        return False


if __name__ == "__main__":
    with open(HERE / "items.jsonl", "w", encoding="utf-8") as file:
        for item in items(Graph.read(HERE / "graph.cypher")):
            file.write(json.dumps(item) + "\n")
