"""Twenty sentences that no training data holds, and what the default model finds in them today.

    python -m tests.golden.sentences

writes `sentences.json` from the default bundle: run it when the bundle changes, never edit it.
"""

import json
from pathlib import Path
from typing import Any

import nerlet

PATH = Path(__file__).with_suffix(".json")

# Text -> what a user would ask of it.
SENTENCES = {
    "Dr. Lena Fischer joined Bosch in Stuttgart on 7 August 2018.": [
        "person",
        "company",
        "city",
        "date",
    ],
    "Ms. Okafor flies from Lagos to Reykjavik with Icelandair next Tuesday.": [
        "person",
        "city",
        "airline",
        "date",
    ],
    "The board of Novo Nordisk rejected the offer from Pfizer on 3 November 2025.": [
        "company",
        "date",
    ],
    "Please ship the Dell XPS 13 to 42 Maple Street, Portland, and call +1 503 555 0137.": [
        "product",
        "address",
        "city",
        "phone number",
    ],
    "Patients with type 2 diabetes were given 500 mg of metformin twice daily.": [
        "disease",
        "drug",
        "dose",
    ],
    "Mutations in BRCA1 raise the risk of breast cancer.": ["gene", "disease"],
    "The Great Gatsby by F. Scott Fitzgerald was published in 1925.": ["book", "author", "date"],
    "Rust and Python bindings for SQLite are maintained by volunteers in Berlin.": [
        "programming language",
        "software",
        "city",
    ],
    "Judge Amara Diallo sentenced the defendant under the Computer Fraud and Abuse Act.": [
        "person",
        "law",
    ],
    "Real Madrid beat Borussia Dortmund 2-0 at Wembley Stadium.": ["sports team", "stadium"],
    "Mix two cups of flour with an egg, a pinch of salt and cold butter.": [
        "ingredient",
        "quantity",
    ],
    "The Danube flows through Vienna, Bratislava, Budapest and Belgrade.": ["river", "city"],
    "Hurricane Otis made landfall near Acapulco, Mexico, in October 2023.": [
        "natural disaster",
        "city",
        "country",
        "date",
    ],
    "my sister anna works for siemens in munich": ["person", "company", "city"],
    "NASA's Perseverance rover collected rock samples in Jezero Crater on Mars.": [
        "organization",
        "spacecraft",
        "planet",
    ],
    "Taylor Swift sang Cardigan and August during the Eras Tour in Singapore.": [
        "musician",
        "song",
        "event",
        "country",
    ],
    "Send the invoice to accounts@example.com before Friday, said Priya Raman.": [
        "email address",
        "person",
        "date",
    ],
    "The court in Strasbourg ruled that Hungary had breached the European Convention on Human "
    "Rights.": ["city", "country", "law"],
    "Vincent van Gogh painted The Starry Night in Saint-Rémy in June 1889. 🎨": [
        "artist",
        "painting",
        "city",
        "date",
    ],
    "Show me romantic comedies with Hugh Grant directed by Richard Curtis.": [
        "genre",
        "actor",
        "director",
    ],
}


def find_entities() -> list[dict[str, Any]]:
    """What the default bundle finds in each sentence, at its own threshold."""
    model = nerlet.load(threads=1)
    return [
        {"text": text, "labels": labels, "entities": model.predict_entities(text, labels)}
        for text, labels in SENTENCES.items()
    ]


def main() -> None:
    """Write the golden file."""
    bundle = nerlet.load(threads=1).bundle
    manifest = bundle.manifest
    record = manifest.weights_sha256 if manifest else None
    document = {"weights_sha256": record, "sentences": find_entities()}
    PATH.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
