"""The table of orders."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("item", models.CharField(max_length=100)),
                ("count", models.PositiveIntegerField()),
                ("total", models.DecimalField(max_digits=10, decimal_places=2, null=True)),
                ("is_open", models.BooleanField(default=True)),
            ],
        ),
    ]
