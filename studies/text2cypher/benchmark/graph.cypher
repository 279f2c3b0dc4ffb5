// An invented world of books for text2cypher: six kinds of nodes, and what connects them.
// Statements end with a semicolon at a line's end; the benchmark's answers are this graph's.
CREATE NODE TABLE City(name STRING, region STRING, population INT64, PRIMARY KEY(name));
CREATE NODE TABLE Publisher(name STRING, founded INT64, PRIMARY KEY(name));
CREATE NODE TABLE Genre(name STRING, PRIMARY KEY(name));
CREATE NODE TABLE Author(name STRING, born INT64, PRIMARY KEY(name));
CREATE NODE TABLE Book(title STRING, year INT64, pages INT64, PRIMARY KEY(title));
CREATE NODE TABLE Prize(name STRING, since INT64, PRIMARY KEY(name));
CREATE REL TABLE BASED_IN(FROM Publisher TO City);
CREATE REL TABLE BORN_IN(FROM Author TO City);
CREATE REL TABLE WROTE(FROM Author TO Book);
CREATE REL TABLE PUBLISHED(FROM Publisher TO Book);
CREATE REL TABLE IN_GENRE(FROM Book TO Genre);
CREATE REL TABLE WON(FROM Book TO Prize, year INT64);
CREATE REL TABLE INFLUENCED(FROM Author TO Author);

UNWIND [
  {name: "Aldermoor", region: "North", population: 412000},
  {name: "Brinhaven", region: "Coast", population: 958000},
  {name: "Cassel Bay", region: "Coast", population: 187000},
  {name: "Dunmarrow", region: "South", population: 73000},
  {name: "Eastwick Falls", region: "North", population: 265000},
  {name: "Farrowgate", region: "Midlands", population: 634000},
  {name: "Glenporth", region: "Coast", population: 51000},
  {name: "Harrowmere", region: "Midlands", population: 129000},
  {name: "Ivelstone", region: "South", population: 340000},
  {name: "Kestrel Hill", region: "North", population: 28000}
] AS row
CREATE (:City {name: row.name, region: row.region, population: row.population});

UNWIND ["adventure", "biography", "crime", "fantasy", "history", "poetry", "romance"] AS row
CREATE (:Genre {name: row});

UNWIND [
  {name: "Golden Quill", since: 1950},
  {name: "Harbour Prize", since: 1972},
  {name: "Midlands Medal", since: 1985},
  {name: "Star of Aldermoor", since: 1963}
] AS row
CREATE (:Prize {name: row.name, since: row.since});

UNWIND [
  {name: "Blue Heron Press", founded: 1921, city: "Brinhaven"},
  {name: "Cartwheel Books", founded: 1974, city: "Farrowgate"},
  {name: "Lantern House", founded: 1898, city: "Aldermoor"},
  {name: "Northlight", founded: 2003, city: "Eastwick Falls"},
  {name: "Old Quay", founded: 1956, city: "Brinhaven"},
  {name: "Salt and Paper", founded: 1989, city: "Ivelstone"}
] AS row
MATCH (c:City {name: row.city})
CREATE (:Publisher {name: row.name, founded: row.founded})-[:BASED_IN]->(c);

UNWIND [
  {name: "Ada Merrin", born: 1931, city: "Brinhaven"},
  {name: "Bruno Castell", born: 1948, city: "Aldermoor"},
  {name: "Clara Ovington", born: 1965, city: "Farrowgate"},
  {name: "Dario Pell", born: 1972, city: "Aldermoor"},
  {name: "Edith Farrow", born: 1919, city: "Eastwick Falls"},
  {name: "Felix Amberley", born: 1980, city: "Cassel Bay"},
  {name: "Greta Holm", born: 1956, city: "Aldermoor"},
  {name: "Hugo Lanark", born: 1943, city: "Eastwick Falls"},
  {name: "Ines Tolland", born: 1988, city: "Aldermoor"},
  {name: "Jonas Wexley", born: 1961, city: "Cassel Bay"},
  {name: "Kira Dunmore", born: 1977, city: "Aldermoor"},
  {name: "Lewis Arden", born: 1925, city: "Aldermoor"},
  {name: "Mara Quill", born: 1969, city: "Cassel Bay"},
  {name: "Nils Ravenor", born: 1952, city: "Harrowmere"},
  {name: "Odile Strand", born: 1991, city: "Aldermoor"},
  {name: "Piers Hathaway", born: 1938, city: "Brinhaven"},
  {name: "Queenie Marsh", born: 1974, city: "Farrowgate"},
  {name: "Rufus Ellory", born: 1984, city: "Ivelstone"},
  {name: "Selma Brandt", born: 1946, city: "Eastwick Falls"},
  {name: "Tobias Finch", born: 1958, city: "Cassel Bay"},
  {name: "Una Carrick", born: 1967, city: "Kestrel Hill"},
  {name: "Viktor Sorrel", born: 1934, city: "Aldermoor"},
  {name: "Wanda Leith", born: 1982, city: "Ivelstone"},
  {name: "Yorick Dane", born: 1950, city: "Brinhaven"}
] AS row
MATCH (c:City {name: row.city})
CREATE (:Author {name: row.name, born: row.born})-[:BORN_IN]->(c);

UNWIND [
  {title: "A Map of Small Rivers", year: 1998, pages: 243, author: "Bruno Castell", publisher: "Lantern House", genre: "poetry"},
  {title: "The Glass Orchard", year: 1986, pages: 649, author: "Piers Hathaway", publisher: "Cartwheel Books", genre: "biography"},
  {title: "Winter at Kestrel Hill", year: 1960, pages: 216, author: "Ada Merrin", publisher: "Blue Heron Press", genre: "biography"},
  {title: "The Clockmaker's Debt", year: 2005, pages: 680, author: "Queenie Marsh", publisher: "Salt and Paper", genre: "biography"},
  {title: "Salt Roads", year: 2012, pages: 411, author: "Ines Tolland", publisher: "Northlight", genre: "romance"},
  {title: "Letters to a Lighthouse", year: 2014, pages: 669, author: "Dario Pell", publisher: "Cartwheel Books", genre: "crime"},
  {title: "The Ninth Ferry", year: 1994, pages: 281, author: "Nils Ravenor", publisher: "Blue Heron Press", genre: "biography"},
  {title: "Under Copper Skies", year: 2014, pages: 201, author: "Kira Dunmore", publisher: "Old Quay", genre: "crime"},
  {title: "The Baker of Brinhaven", year: 2009, pages: 691, author: "Clara Ovington", publisher: "Cartwheel Books", genre: "poetry"},
  {title: "Seven Quiet Harbours", year: 2002, pages: 288, author: "Selma Brandt", publisher: "Salt and Paper", genre: "poetry"},
  {title: "An Atlas of Rain", year: 1970, pages: 477, author: "Hugo Lanark", publisher: "Lantern House", genre: "romance"},
  {title: "The Hollow Crown Inn", year: 2020, pages: 195, author: "Rufus Ellory", publisher: "Northlight", genre: "fantasy"},
  {title: "Moth and Lantern", year: 2018, pages: 656, author: "Wanda Leith", publisher: "Blue Heron Press", genre: "fantasy"},
  {title: "The Last Tollkeeper", year: 1983, pages: 160, author: "Viktor Sorrel", publisher: "Blue Heron Press", genre: "biography"},
  {title: "Paper Gardens", year: 1978, pages: 673, author: "Yorick Dane", publisher: "Cartwheel Books", genre: "fantasy"},
  {title: "Songs for a Drowned Town", year: 2006, pages: 157, author: "Kira Dunmore", publisher: "Blue Heron Press", genre: "crime"},
  {title: "The Weaver's Alibi", year: 2012, pages: 306, author: "Yorick Dane", publisher: "Blue Heron Press", genre: "adventure"},
  {title: "North of Aldermoor", year: 1980, pages: 604, author: "Greta Holm", publisher: "Cartwheel Books", genre: "history"},
  {title: "The Cartographer's Wife", year: 1978, pages: 640, author: "Bruno Castell", publisher: "Lantern House", genre: "history"},
  {title: "Iron Blossom", year: 1963, pages: 533, author: "Piers Hathaway", publisher: "Blue Heron Press", genre: "romance"},
  {title: "A Thief in the Archive", year: 1998, pages: 417, author: "Jonas Wexley", publisher: "Salt and Paper", genre: "fantasy"},
  {title: "Tides and Ledgers", year: 2014, pages: 572, author: "Ines Tolland", publisher: "Salt and Paper", genre: "crime"},
  {title: "The Honey Tax", year: 2009, pages: 695, author: "Queenie Marsh", publisher: "Old Quay", genre: "crime"},
  {title: "Ashes of the Guild", year: 2019, pages: 560, author: "Clara Ovington", publisher: "Blue Heron Press", genre: "adventure"},
  {title: "The Silent Regatta", year: 2022, pages: 466, author: "Odile Strand", publisher: "Northlight", genre: "fantasy"},
  {title: "Bread and Thunder", year: 1985, pages: 402, author: "Ada Merrin", publisher: "Lantern House", genre: "adventure"},
  {title: "The Owl Ministry", year: 1958, pages: 350, author: "Lewis Arden", publisher: "Blue Heron Press", genre: "poetry"},
  {title: "Two Brothers of Dunmarrow", year: 2012, pages: 280, author: "Una Carrick", publisher: "Salt and Paper", genre: "crime"},
  {title: "The Amber Verdict", year: 2008, pages: 345, author: "Mara Quill", publisher: "Salt and Paper", genre: "biography"},
  {title: "Footnotes to a Storm", year: 2015, pages: 179, author: "Tobias Finch", publisher: "Blue Heron Press", genre: "biography"},
  {title: "The Fog Collector", year: 2018, pages: 684, author: "Jonas Wexley", publisher: "Lantern House", genre: "biography"},
  {title: "Harvest of Bells", year: 1977, pages: 403, author: "Edith Farrow", publisher: "Blue Heron Press", genre: "romance"},
  {title: "The Green Telegram", year: 2015, pages: 633, author: "Tobias Finch", publisher: "Lantern House", genre: "poetry"},
  {title: "Nightshade Street", year: 2023, pages: 602, author: "Dario Pell", publisher: "Blue Heron Press", genre: "poetry"},
  {title: "A Short History of Keys", year: 1986, pages: 447, author: "Selma Brandt", publisher: "Lantern House", genre: "biography"},
  {title: "The Reluctant Pilot", year: 2002, pages: 555, author: "Greta Holm", publisher: "Cartwheel Books", genre: "history"},
  {title: "Coal and Violets", year: 2018, pages: 390, author: "Rufus Ellory", publisher: "Salt and Paper", genre: "biography"},
  {title: "The Painted Bridge", year: 2023, pages: 719, author: "Felix Amberley", publisher: "Cartwheel Books", genre: "romance"},
  {title: "Three Winters", year: 1958, pages: 170, author: "Edith Farrow", publisher: "Lantern House", genre: "poetry"},
  {title: "The Museum of Echoes", year: 2011, pages: 620, author: "Felix Amberley", publisher: "Cartwheel Books", genre: "history"},
  {title: "Swallows over Ivelstone", year: 2007, pages: 524, author: "Nils Ravenor", publisher: "Lantern House", genre: "poetry"},
  {title: "The Counterfeit Saint", year: 1968, pages: 264, author: "Hugo Lanark", publisher: "Blue Heron Press", genre: "romance"},
  {title: "Lemon Season", year: 2019, pages: 446, author: "Odile Strand", publisher: "Northlight", genre: "crime"},
  {title: "The Long Quay", year: 2012, pages: 251, author: "Wanda Leith", publisher: "Salt and Paper", genre: "history"},
  {title: "Dust on the Violin", year: 1980, pages: 596, author: "Viktor Sorrel", publisher: "Old Quay", genre: "romance"},
  {title: "The Orchardist's Oath", year: 2013, pages: 527, author: "Una Carrick", publisher: "Lantern House", genre: "adventure"},
  {title: "Marginal Kingdoms", year: 2000, pages: 136, author: "Mara Quill", publisher: "Blue Heron Press", genre: "biography"},
  {title: "The Last Almanac", year: 1979, pages: 175, author: "Lewis Arden", publisher: "Cartwheel Books", genre: "crime"}
] AS row
MATCH (a:Author {name: row.author}), (p:Publisher {name: row.publisher}), (g:Genre {name: row.genre})
CREATE (a)-[:WROTE]->(b:Book {title: row.title, year: row.year, pages: row.pages})-[:IN_GENRE]->(g),
       (p)-[:PUBLISHED]->(b);

// Books of two authors, and of two genres.
UNWIND [
  {author: "Tobias Finch", title: "Salt Roads"},
  {author: "Una Carrick", title: "The Ninth Ferry"},
  {author: "Tobias Finch", title: "Under Copper Skies"},
  {author: "Yorick Dane", title: "An Atlas of Rain"},
  {author: "Queenie Marsh", title: "The Hollow Crown Inn"},
  {author: "Greta Holm", title: "Songs for a Drowned Town"},
  {author: "Greta Holm", title: "The Green Telegram"},
  {author: "Edith Farrow", title: "The Last Almanac"}
] AS row
MATCH (a:Author {name: row.author}), (b:Book {title: row.title})
CREATE (a)-[:WROTE]->(b);

UNWIND [
  {title: "The Clockmaker's Debt", genre: "romance"},
  {title: "Seven Quiet Harbours", genre: "biography"},
  {title: "The Last Tollkeeper", genre: "adventure"},
  {title: "The Cartographer's Wife", genre: "poetry"},
  {title: "A Thief in the Archive", genre: "romance"},
  {title: "Bread and Thunder", genre: "history"},
  {title: "Two Brothers of Dunmarrow", genre: "biography"},
  {title: "Harvest of Bells", genre: "history"},
  {title: "The Long Quay", genre: "adventure"}
] AS row
MATCH (b:Book {title: row.title}), (g:Genre {name: row.genre})
CREATE (b)-[:IN_GENRE]->(g);

UNWIND [
  {title: "A Map of Small Rivers", prize: "Midlands Medal", year: 1999},
  {title: "The Glass Orchard", prize: "Harbour Prize", year: 1987},
  {title: "Winter at Kestrel Hill", prize: "Golden Quill", year: 1961},
  {title: "The Clockmaker's Debt", prize: "Harbour Prize", year: 2006},
  {title: "The Clockmaker's Debt", prize: "Star of Aldermoor", year: 2007},
  {title: "Letters to a Lighthouse", prize: "Harbour Prize", year: 2016},
  {title: "The Baker of Brinhaven", prize: "Midlands Medal", year: 2010},
  {title: "Seven Quiet Harbours", prize: "Golden Quill", year: 2004},
  {title: "The Hollow Crown Inn", prize: "Midlands Medal", year: 2021},
  {title: "The Honey Tax", prize: "Midlands Medal", year: 2011},
  {title: "The Silent Regatta", prize: "Star of Aldermoor", year: 2024},
  {title: "The Amber Verdict", prize: "Harbour Prize", year: 2010},
  {title: "The Amber Verdict", prize: "Golden Quill", year: 2010},
  {title: "The Fog Collector", prize: "Golden Quill", year: 2020},
  {title: "A Short History of Keys", prize: "Golden Quill", year: 1988},
  {title: "The Reluctant Pilot", prize: "Star of Aldermoor", year: 2004},
  {title: "Coal and Violets", prize: "Harbour Prize", year: 2019},
  {title: "The Painted Bridge", prize: "Harbour Prize", year: 2024},
  {title: "Dust on the Violin", prize: "Harbour Prize", year: 1981},
  {title: "The Orchardist's Oath", prize: "Harbour Prize", year: 2015}
] AS row
MATCH (b:Book {title: row.title}), (p:Prize {name: row.prize})
CREATE (b)-[:WON {year: row.year}]->(p);

UNWIND [
  {older: "Ada Merrin", younger: "Mara Quill"},
  {older: "Ada Merrin", younger: "Nils Ravenor"},
  {older: "Ada Merrin", younger: "Queenie Marsh"},
  {older: "Edith Farrow", younger: "Ada Merrin"},
  {older: "Edith Farrow", younger: "Kira Dunmore"},
  {older: "Edith Farrow", younger: "Viktor Sorrel"},
  {older: "Greta Holm", younger: "Dario Pell"},
  {older: "Hugo Lanark", younger: "Jonas Wexley"},
  {older: "Lewis Arden", younger: "Hugo Lanark"},
  {older: "Lewis Arden", younger: "Ines Tolland"},
  {older: "Lewis Arden", younger: "Mara Quill"},
  {older: "Lewis Arden", younger: "Piers Hathaway"},
  {older: "Lewis Arden", younger: "Selma Brandt"},
  {older: "Lewis Arden", younger: "Tobias Finch"},
  {older: "Lewis Arden", younger: "Viktor Sorrel"},
  {older: "Piers Hathaway", younger: "Dario Pell"},
  {older: "Una Carrick", younger: "Ines Tolland"},
  {older: "Una Carrick", younger: "Wanda Leith"},
  {older: "Viktor Sorrel", younger: "Felix Amberley"},
  {older: "Viktor Sorrel", younger: "Hugo Lanark"},
  {older: "Viktor Sorrel", younger: "Selma Brandt"},
  {older: "Yorick Dane", younger: "Dario Pell"}
] AS row
MATCH (a:Author {name: row.older}), (b:Author {name: row.younger})
CREATE (a)-[:INFLUENCED]->(b);

